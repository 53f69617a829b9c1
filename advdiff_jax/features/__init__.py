"""Feature networks: functions from images to vectors, in which distributions of images are compared. One file each."""
