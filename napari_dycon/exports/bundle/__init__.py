"""What every exported MONAI bundle takes along as it is; nothing below imports napari-dycon."""
