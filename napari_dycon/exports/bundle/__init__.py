"""Files copied unchanged to each MONAI bundle; they do not import napari-dycon."""
