"""Atlas methods: deformable registration, multi-atlas label fusion, registered training cases,
pseudo-labels and templates."""
