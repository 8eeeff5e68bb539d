"""From scans to training batches.

Planning, the data split, preprocessing, patches, augmentation and the loader.
"""
