"""Training data: planning, split, preprocessing, patches, augmentation and loader."""
