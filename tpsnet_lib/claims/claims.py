"""The original's claims (a) to (j), and the tests of them: what is compared, at which budgets, the largest first.

The smallest effect of interest is one point of accuracy (`stats.SMALLEST_EFFECT`) unless a test says otherwise. A place
such as `study_layers/N=2` names the runs of one label of an experiment. `TESTS`, at the end, is the table."""

import functools
from dataclasses import dataclass

from tpsnet_lib.analysis import original_results
from tpsnet_lib.claims import searches
from tpsnet_lib.claims.studies import (
    CONTROL,
    CONTROL_LONG,
    SMALL,
    Answers,
    cost_of_depth,
    deep_and_narrow,
    differences,
    equal_size,
    gain_of_depth,
    gain_of_dropout,
    more_overfitting,
    odd_blocks,
    reproduction,
    shallow_and_wide,
    three_layers_against,
    wider_at_three_blocks,
)

CLAIMS = {  # what the original says, with its figure and the place of it
    "a": "TPSNet reaches 94.84% with 4.96 million parameters (its paper, Table 2; 300 epochs, one run)",
    "b": "Three residual layers beat two and four (its paper, section 4, Figure 3)",
    "c": "Odd numbers of blocks in a layer beat even ones (its paper, section 4, Figure 3)",
    "d": "Dropout lowers the test error (its paper, section 4)",
    "e": "After 30 epochs the shallow, wide networks win, with 88.20% against 84.65%; after 300 the deep, narrow ones,"
    " with 94.84% against 94.02% (its paper, Tables 1 and 2; its own public curve has"
    f" {original_results.CURVE[30]:.2%} at epoch 30, {original_results.AROUND_30:.1%} on average around it)",
    "f": "Wider is better at a fixed depth, across depths (its paper, section 4)",
    "g": "SGD with a learning rate of 0.01 comes out of the search (its paper, section 3, and its README)",
    "h": "Deeper networks generalise without overfitting, at equal parameters (its README)",
    "i": "Models of comparable size give about the same accuracy: 94.02% to 94.84% after 300 epochs (its Table 1)",
    "j": "Widening costs less than deepening (its paper, section 4)",
}

TOPICS = {  # what each is about, in a few words
    "a": "the recipe",
    "b": "the number of layers",
    "c": "odd block counts",
    "d": "dropout",
    "e": "depth and the length of a run",
    "f": "width",
    "g": "SGD and its rate",
    "h": "overfitting of depth",
    "i": "equal sizes",
    "j": "the cost of depth",
}


@dataclass(frozen=True)
class Test:
    """A sentence that is judged by itself, the claim that it belongs to, and its answers, the largest budget first."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    name: str
    claim: str
    short: str  # the sentence in a few words, without its budget
    sentence: str
    answers: Answers
    headline: bool = False  # picked for the first screen, which shows it once it is settled in long runs


TESTS = [
    Test(
        "reproduction",
        "a",
        "the recipe reaches 94.84% again",
        "TPSNet, by the original's recipe to its last epoch, reaches 94.84% but for a point at most",
        reproduction,
    ),
    Test(
        "three layers against two",
        "b",
        "three layers beat two of equal size",
        "Three residual layers beat two, at matched parameters",
        three_layers_against(2),
        headline=True,
    ),
    Test(
        "three layers against two, MACs",
        "b",
        "three layers beat two of equal MACs",
        "Three residual layers beat two, at matched MACs",
        differences((CONTROL, "study_layers_macs/N=2, MACs"), (SMALL, "effects_layers_macs/N=2")),
    ),
    Test(
        "three layers against four",
        "b",
        "three layers beat four of equal size",
        "Three residual layers beat four, at matched parameters",
        three_layers_against(4),
        headline=True,
    ),
    Test(
        "three layers against four, MACs",
        "b",
        "three layers beat four of equal MACs",
        "Three residual layers beat four, at matched MACs",
        differences((CONTROL, "study_layers_macs/N=4, MACs"), (SMALL, "effects_layers_macs/N=4")),
    ),
    Test(
        "odd",
        "c",
        "odd block counts beat even ones",
        "Odd numbers of blocks beat even ones, at matched parameters and MACs, beyond the trend with depth",
        odd_blocks,
    ),
    Test(
        "odd in the search",
        "c",
        "odd block counts beat even ones in random networks",
        "Odd numbers of blocks beat even ones, in random networks of the original's space",
        searches.odd_depths,
    ),
    Test(
        "dropout",
        "d",
        "dropout 0.2 at the classifier helps",
        "Dropout of 0.2 before the classifier raises the accuracy",
        searches.after_random_trials(
            "random networks with more",
            functools.partial(searches.more_dropout, variable="dropout"),
            gain_of_dropout(("study_dropout/B=1, dropout 0.2", CONTROL), ("effects_dropout/D=0.2", SMALL)),
        ),
    ),
    Test(
        "dropout, longer run",
        "d",
        "dropout 0.2 at the classifier helps a longer run",
        "Dropout of 0.2 before the classifier raises the accuracy of a run four times as long",
        gain_of_dropout(("study_dropout_long/B=1, dropout 0.2, 48 epochs", CONTROL_LONG)),
    ),
    Test(
        "block dropout",
        "d",
        "dropout 0.2 in the blocks helps",
        "Dropout of 0.2 inside the blocks raises the accuracy",
        searches.after_random_trials(
            "random networks with more",
            functools.partial(searches.more_dropout, variable="block_dropout"),
            gain_of_dropout(("study_dropout/B=1, block dropout 0.2", CONTROL), ("effects_dropout/Db=0.2", SMALL)),
        ),
    ),
    Test(
        "block dropout, longer run",
        "d",
        "dropout 0.2 in the blocks helps a longer run",
        "Dropout of 0.2 inside the blocks raises the accuracy of a run four times as long",
        gain_of_dropout(("study_dropout_long/B=1, block dropout 0.2, 48 epochs", CONTROL_LONG)),
        headline=True,
    ),
    Test(
        "shallow, short run",
        "e",
        "three blocks beat five in a short run",
        "In a short run, shallow and wide (three blocks a layer) beats deep and narrow (five), at matched parameters",
        shallow_and_wide,
        headline=True,
    ),
    Test(
        "shallow, run cut off",
        "e",
        "shallow and wide wins a run that is cut off",
        "So it does where the short run is cut off a longer schedule, as the original's were",
        differences(("table1_unmatched/model=model1", "table1_unmatched/model=tpsnet")),
    ),
    Test(
        "deep, longer run",
        "e",
        "deep and narrow is ahead after a longer run",
        "In a longer run, deep and narrow beats shallow and wide, at matched parameters",
        deep_and_narrow,
    ),
    Test(
        "gain in points",
        "e",
        "a longer run brings deep networks more points",
        "A longer run brings the deep, narrow network more than the shallow, wide one, in points",
        functools.partial(gain_of_depth, logits=False),
    ),
    Test(
        "gain in logits",
        "e",
        "a longer run brings deep networks more log-odds",
        "A longer run brings the deep, narrow network more than the shallow, wide one, in log-odds, log(p / (1 - p))",
        functools.partial(gain_of_depth, logits=True),
    ),
    Test(
        "width at one block",
        "f",
        "wider is better at one block",
        "Wider is better at one block a layer",
        differences(("study_width/B=1, wide", CONTROL), ("effects_width/w=12", SMALL)),
        headline=True,
    ),
    Test(
        "width at three blocks",
        "f",
        "wider is better at three blocks",
        "Wider is better at three blocks a layer",
        wider_at_three_blocks,
        headline=True,
    ),
    Test(
        "optimizer",
        "g",
        "SGD beats the best of the Adam family",
        "SGD beats the Adam family",
        searches.after_random_trials("random trials", searches.optimizers, searches.sgd_against_adam),
    ),
    Test(
        "learning rate",
        "g",
        "0.01 is among the best rates for SGD",
        "0.01 is among the best rates for SGD",
        searches.after_random_trials("random trials", searches.rate_of_the_original, searches.rate_against_the_tuned),
    ),
    Test(
        "overfitting",
        "h",
        "depth overfits by at most a point more than width",
        "The deep network overfits by at most a point more than the shallow one of equal parameters",
        more_overfitting,
    ),
    Test(
        "equal size",
        "i",
        "networks of equal size, of two to four layers, are alike",
        "Networks of equal parameters, of two to four layers and different depth, are all within a point",
        equal_size,
    ),
    Test(
        "equal size, three layers",
        "i",
        "networks of equal size and three layers are alike",
        "So are networks of equal parameters and three layers, as all of the original's are",
        functools.partial(equal_size, three_layers=True),
    ),
    Test(
        "cost",
        "j",
        "one wide block costs less time than five narrow ones",
        "Parameters cost less training time as width (one block a layer) than as depth (five)",
        cost_of_depth,
    ),
]
