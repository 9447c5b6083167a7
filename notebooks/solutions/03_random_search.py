"""Worked solutions of notebook 03; each section is run where the notebook's names are known."""

# %% a space with room
my_variables = {"layers": [3], "blocks": {"int": [1, 8]}, "width": {"int": [8, 24]}}

# %% draws for the best 1%
my_draws = next(n for n in range(1, 1000) if 1 - 0.99**n >= 0.95)


# %% regret
def regret(short, long):
    """The long accuracy that is lost by picking the best short trial."""
    return long.max() - long[short.argmax()]


# %% forty alike
# the best of 40 normal numbers lies 2.16 standard deviations above their mean
my_guess = 80 + 2.16 * 100 * (0.8 * 0.2 / 500) ** 0.5
