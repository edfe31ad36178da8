"""`python -m lightkeep` is the same as the command `lightkeep`."""

from lightkeep.cli import main

if __name__ == "__main__":
    main()
