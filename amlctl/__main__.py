"""`python -m amlctl`."""

from amlctl.cli.app import main

if __name__ == "__main__":
    main()
