"""`python -m p2phub`: the same as the command `p2phub`."""

from p2phub.cli.main import entry

if __name__ == "__main__":
    entry()
