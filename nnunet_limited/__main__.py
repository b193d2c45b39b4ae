"""``python -m nnunet_limited`` is the ``nnunet-limited`` command."""

from nnunet_limited.cli.main import main

if __name__ == "__main__":
    main()
