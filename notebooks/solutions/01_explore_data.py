"""Worked solutions of notebook 01, a section a task. The tests run them in place of the answers."""

# ruff: noqa: F821 - names such as `pixel_std` are the notebook's

# %% deviation of normalised red
# Subtracting a constant leaves a deviation as it is; dividing by a constant divides it by that.
answer = float(pixel_std[0] / STD[0])


# %% nearest mean
# Distances between all images and all means, then the position of the smallest in each row.
def nearest_mean(images, means):
    distances = torch.cdist(images.flatten(1).float(), means.flatten(1))
    return distances.argmin(1)


# %% augmentations that hurt digits
# A mirrored 2 is no digit, and TrivialAugment turns images by up to 135 degrees, which makes a 6 a 9.
answer = ["random flip", "alternating flip", "TrivialAugment"]

# %% images for 0.2 points
# The half-width is about 1.96 sqrt(p (1 - p) / n). Solve for n.
answer = round(0.95 * 0.05 * (1.96 / 0.002) ** 2)
