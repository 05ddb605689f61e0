"""x"""
NAME = "models"
HELP = "x"
def command() -> int:
    return 0
