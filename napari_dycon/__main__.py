"""``python -m napari_dycon``: the same as the ``napari-dycon`` command."""

from napari_dycon.cli.app import main

if __name__ == "__main__":
    main()
