"""Worked solutions of notebook 04, a section a task."""

# ruff: noqa: F821

# %% training step


def train_step(network, optimizer, inputs, labels):
    """One update of the weights of `network`; returns the loss of the batch as a number."""
    import torch.nn.functional as F

    logits = network(inputs)
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


# %% training loop
# Names such as `training` are the notebook's; `step` is its `train_step`.


def epochs_of(config, images, step=train_step):
    """Train the network of a run; hand it out after each epoch with its steps' losses."""
    recipe, size = config.train, config.train.batch_size
    steps, (network, optimizer) = len(images) // size, training.start(config)
    rate = optim.schedule(recipe, steps, round(recipe.epochs * steps))
    for epoch in course.track(range(int(recipe.epochs)), "epochs"):
        order, losses = permutation(config.seed, epoch, len(images)), []
        for k, batch in enumerate(order.split(size)[:steps]):
            which = images.indices[batch]
            shown = augment(images.images[batch], which, recipe, config.seed, epoch)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * rate(epoch * steps + k)
            inputs, labels = normalise(shown), images.labels[batch]
            losses.append(step(network, optimizer, inputs, labels))
        yield network, losses


# %% cosine schedule


def cosine(share):
    """The learning rate as a part of its peak; `share` of the run is a tensor of 0 to 1."""
    import math

    return (1 + (math.pi * share).cos()) / 2


# %% seeds

my_seeds = 31
