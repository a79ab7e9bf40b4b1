"""`python -m maskedmodel` is the command `maskedmodel`: what torchrun's -m starts."""

from maskedmodel.cli.app import main

if __name__ == "__main__":
    main()
