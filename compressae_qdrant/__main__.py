"""`python -m compressae_qdrant`: the command line, also as the program of `torchrun`."""

from .cli import main

if __name__ == "__main__":
    main()
