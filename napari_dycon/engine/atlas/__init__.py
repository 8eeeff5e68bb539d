"""Atlas methods: registration, multi-atlas label fusion, pseudo-labels and templates."""
