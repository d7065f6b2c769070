"""`python -m switchboard_standalone` is `switchboard`."""

from switchboard_standalone.cli import main

if __name__ == "__main__":
    main()
