"""x"""
NAME = "batch"
HELP = "x"
def command() -> int:
    return 0
