"""`python -m dtms_service` is `dtms`."""

from dtms_service.cli import main

if __name__ == "__main__":
    main()
