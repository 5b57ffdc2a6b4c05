"""`python -m modelsat_engine` is `modelsat`."""

from modelsat_engine.cli import main

if __name__ == "__main__":
    main()
