"""x"""
NAME = "chunks"
HELP = "x"
def command() -> int:
    return 0
