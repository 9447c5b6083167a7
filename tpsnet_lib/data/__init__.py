"""The images: CIFAR-10 and shapes10, the split, augmentation of whole batches, what others said of the test images."""
