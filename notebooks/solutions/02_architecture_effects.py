"""Worked solutions of notebook 02; each section runs where the notebook's names are known."""

# ruff: noqa: F821


# %% block
class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, stride=1, skip=True):
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.skip, self.projection = skip, nn.Identity()
        if skip and (stride > 1 or inputs != outputs):
            project = conv(inputs, outputs, 1, stride)
            self.projection = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.projection(x) if self.skip else out)


# %% layer
def make_layer(inputs, outputs, blocks, stride=1, skip=True):
    first = ResidualBlock(inputs, outputs, stride, skip)
    others = [ResidualBlock(outputs, outputs, 1, skip) for _ in range(blocks - 1)]
    return nn.Sequential(first, *others)


# %% network
class Network(nn.Module):
    def __init__(self, stem, channels, blocks, skip=True):
        super().__init__()
        self.stem = nn.Sequential(conv(3, stem, 3), nn.BatchNorm2d(stem), nn.ReLU())
        self.layers = nn.Sequential()
        inputs = stem
        for outputs in channels:
            stride = 2 if len(self.layers) else 1
            self.layers.append(make_layer(inputs, outputs, blocks, stride, skip))
            inputs = outputs
        self.head = nn.Linear(channels[-1], 10)

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


# %% multiplications
answer = 64 * 128 * 3**2 * 16**2  # inputs x outputs x kernel^2 weights, each used once for every pixel

# %% verdict
answer = "holds" if 1.2 - 4.30 * 0.75 / 3**0.5 > 0 else "not settled"  # the lower end of the t interval, in points
