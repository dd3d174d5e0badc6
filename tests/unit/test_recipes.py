"""Recipe files: what they say, and what is refused."""

import pytest

from commbench.errors import UserError
from commbench.workloads.recipes import load_recipe, recipe_names

VALID = """
reference_batch = 128
reference_lr = 0.1
lr_scaling = "sqrt"
momentum = 0.8
weight_decay = 0
reference_epochs = 90

[schedule]
kind = "multistep"
at = [30, 60]
factor = 0.5
"""


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


def test_firecaffe_nin_is_the_published_run():
    recipe = load_recipe("firecaffe-nin")
    plan = recipe.plan(256, 220_000)
    assert (plan.momentum, plan.weight_decay) == (0.9, 5e-4)
    assert [plan.lr(t) for t in (0, 99_999)] == [0.01, 0.01]
    assert [plan.lr(t) for t in (100_000, 199_999)] == [pytest.approx(1e-3)] * 2
    assert [plan.lr(t) for t in (200_000, 219_999)] == [pytest.approx(1e-4)] * 2


def test_firecaffe_nin_at_batch_1024_is_the_published_run():
    plan = load_recipe("firecaffe-nin").plan(1024, 55_000)
    assert plan.base_lr == pytest.approx(0.04)
    assert plan.lr(24_999) == pytest.approx(0.04)
    assert plan.lr(25_000) == pytest.approx(0.004)
    assert plan.lr(50_000) == pytest.approx(0.0004)


@pytest.mark.parametrize("steps", [1, 2, 7, 22, 1000, 1001])
def test_drops_keep_their_fractions_of_the_run(steps):
    plan = load_recipe("firecaffe-nin").plan(256, steps)
    drops = [t for t in range(1, steps) if plan.lr(t) != plan.lr(t - 1)]
    assert drops == [t for t in (-(-10 * steps // 22), -(-20 * steps // 22)) if t < steps]


def test_lr_scales_with_the_batch_unless_given():
    recipe = load_recipe("firecaffe-nin")
    assert recipe.plan(64, 100).lr(0) == pytest.approx(0.0025)
    given = recipe.plan(64, 100, lr=0.02)
    assert given.base_lr == 0.02
    assert given.lr(99) == pytest.approx(0.0002)


@pytest.mark.parametrize(
    ("batch", "steps", "lr"),
    [(0, 1, None), (1, 0, None), (1, 1, 0.0), (1, 1, -1.0), (1, 1, float("nan"))],
)
def test_impossible_plans(batch, steps, lr):
    with pytest.raises(UserError, match="must be"):
        load_recipe("firecaffe-nin").plan(batch, steps, lr)


def test_recipe_of_ones_own(recipe_file):
    recipe = load_recipe(recipe_file(VALID))
    assert recipe.name == "mine"
    assert (recipe.bias_lr_multiplier, recipe.bias_decay_multiplier) == (1.0, 1.0)
    plan = recipe.plan(512, 9)
    assert plan.base_lr == pytest.approx(0.2)
    assert [plan.lr(t) for t in (2, 3, 5, 6)] == pytest.approx([0.2, 0.1, 0.1, 0.05])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ('kind = "constant"', [0.1, 0.1, 0.1]),
        ('kind = "polynomial"\npower = 2', [0.1, 0.025, 0.0]),
        ('kind = "cosine"', [0.1, 0.05, 0.0]),
        ('kind = "exponential"\nevery = 45\nfactor = 0.5', [0.1, 0.05, 0.025]),
        ('kind = "step"\nevery = 45\nfactor = 0.5', [0.1, 0.05, 0.025]),
        ('kind = "piecewise"\nat = [45]\nfactors = [1, 0.3]', [0.1, 0.03, 0.03]),
    ],
)
def test_other_schedules(recipe_file, schedule, rates):
    head = VALID.partition("[schedule]")[0]
    plan = load_recipe(recipe_file(f"{head}[schedule]\n{schedule}\n")).plan(128, 10)
    assert [plan.lr(t) for t in (0, 5, 10)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("momentum = 0.8", "momentun = 0.8", ["momentum is missing"]),
        ("momentum = 0.8", "momentum = 0.8\nnesterov = 1", ["unknown key nesterov", "momentum"]),
        ("factor = 0.5", "factor = 0.5\nevery = 2", ["unknown key schedule.every", "schedule.at"]),
        ("momentum = 0.8", "momentum = 1", ["momentum = 1", "at least 0 and below 1"]),
        ("momentum = 0.8", "momentum = true", ["momentum = True", "a number"]),
        ("momentum = 0.8", "momentum = nan", ["momentum = nan", "a number"]),
        ("momentum = 0.8", 'momentum = "0.8"', ["momentum = '0.8'", "a number"]),
        ("weight_decay = 0", "weight_decay = inf", ["weight_decay = inf", "at least 0"]),
        ("reference_lr = 0.1", "reference_lr = 0", ["reference_lr = 0", "above 0"]),
        ("reference_batch = 128", "reference_batch = 1.5", ["= 1.5", "whole number, 1 or more"]),
        ("reference_epochs = 90", "", ["reference_epochs is missing"]),
        ("reference_epochs = 90", "reference_epochs = 0", ["reference_epochs = 0", "above 0"]),
        (
            "reference_epochs = 90",
            "reference_epochs = 90\nreference_steps = 9",
            ["reference_epochs", "drop reference_steps"],
        ),
        ('"sqrt"', '"cube"', ["lr_scaling = 'cube'", "linear, sqrt, none"]),
        ('"multistep"', '"cosines"', ["schedule.kind = 'cosines'", "polynomial"]),
        ('"multistep"', "[1]", ["schedule.kind = [1]", "polynomial"]),
        ("at = [30, 60]", "at = [60, 30]", ["schedule.at", "increasing"]),
        ("at = [30, 60]", "at = []", ["schedule.at", "increasing"]),
        ("at = [30, 60]", "at = [0, 60]", ["schedule.at", "above 0"]),
        ("at = [30, 60]", "at = [30, 90]", ["schedule.at", "below 90"]),
        ("[schedule]", "[plan]", ["schedule is missing"]),
        ("momentum = 0.8", "momentum = ", ["not a TOML file", "line"]),
        ("momentum = 0.8", "description = 3\nmomentum = 0.8", ["description = 3", "a string"]),
        ("[schedule]", "schedule = 3\n[more]", ["schedule = 3", "a table"]),
        ("momentum = 0.8", 'momentum = 0.8\nprecision = "int8"', ["precision", "float16"]),
        ("momentum = 0.8", 'momentum = 0.8\nloss_scale = "big"', ["loss_scale", "dynamic"]),
        ("momentum = 0.8", "momentum = 0.8\nloss_scale = 0", ["loss_scale = 0", "above 0"]),
        ("momentum = 0.8", "momentum = 0.8\nclip_norm = 0", ["clip_norm = 0", "above 0"]),
        ("momentum = 0.8", "momentum = 0.8\nlabel_smoothing = 1", ["label_smoothing", "below 1"]),
        ("momentum = 0.8", "momentum = 0.8\nours = [1]", ["ours = [1]", "strings"]),
        ("[schedule]", "[optimizer]\nkind = 'lamb'\n[schedule]", ["optimizer.kind", "rmsprop-sgd"]),
        (
            "[schedule]",
            "[optimizer]\nkind = 'lars'\nskip = ['beta']\n[schedule]",
            ["optimizer.skip = ['beta']", "bias, norm"],
        ),
        (
            "[schedule]",
            "[optimizer]\nkind = 'sgd'\ntrust = 1\n[schedule]",
            ["unknown key optimizer.trust", "optimizer.nesterov"],
        ),
        (
            "momentum = 0.8\nweight_decay = 0\nreference_epochs = 90\n",
            "momentum = 0\nweight_decay = 0\nreference_epochs = 90\n"
            "[optimizer]\nkind = 'sgd'\nnesterov = true\n",
            ["optimizer.nesterov", "without momentum"],
        ),
        (
            "[schedule]",
            "[optimizer]\nkind = 'sgd'\nnesterov = 1\n[schedule]",
            ["optimizer.nesterov = 1", "true or false"],
        ),
        (
            "[schedule]",
            "[warmup]\nkind = 'gradual'\nsteps = 3\nstart_lr = 0\n[schedule]",
            ["warmup.epochs is missing"],
        ),
        ("[schedule]", "[batch]\nat = [30]\nfactor = 1\n[schedule]", ["batch.factor", "2 or more"]),
        ("[schedule]", "[batch]\nat = [99]\nfactor = 2\n[schedule]", ["batch.at", "below 90"]),
        (
            'kind = "multistep"\nat = [30, 60]\nfactor = 0.5',
            'kind = "piecewise"\nat = [30, 60]\nfactors = [1, 0.5]',
            ["schedule.factors", "3 numbers"],
        ),
    ],
)
def test_bad_recipe_files_say_where_and_what(recipe_file, old, new, words):
    assert old in VALID
    path = recipe_file(VALID.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert path in message
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_unknown_recipes(tmp_path):
    with pytest.raises(UserError, match=r"unknown recipe 'goyal'.*firecaffe-nin.*\.toml file"):
        load_recipe("goyal")
    with pytest.raises(UserError, match="cannot read recipe"):
        load_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="cannot read recipe"):
        load_recipe(str(tmp_path))


def test_every_shipped_recipe_loads():
    assert "firecaffe-nin" in recipe_names()
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        plan = recipe.plan(256, 100)
        assert plan.lr(0) >= 0 < plan.lr(1)


def test_keys_are_changed_by_name():
    recipe = load_recipe(
        "goyal-resnet50@warmup=@lr_scaling=none@schedule.at=[10, 20]@optimizer.nesterov=false"
    )
    shipped = load_recipe("goyal-resnet50")
    assert shipped.warmup.length == 5
    assert recipe.warmup.length == 0
    assert recipe.decay.at == (10, 20)
    assert recipe.base_lr(8192) == shipped.reference_lr
    assert shipped.optimizer.nesterov
    assert not recipe.optimizer.nesterov
    assert recipe.name.startswith("goyal-resnet50@warmup=@")
    # A table that was not there, and a string without quotes.
    grown = load_recipe("legw-lstm-mnist@batch.at=[5]@batch.factor=2@warmup.kind=quadratic")
    assert (grown.growth.factor, grown.warmup.kind) == (2, "quadratic")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("momentun=0.9", "unknown key momentun: use .*momentum"),
        ("schedule.kid=step", r"unknown key schedule\.kid"),
        ("lr_scaling=cubic", "lr_scaling = 'cubic': must be one of linear"),
        ("momentum.x=1", r"cannot change momentum\.x: momentum is not a table"),
        ("clip_norm=", "cannot drop clip_norm"),
        ("momentum=", "key momentum is missing"),
        ("momentum", "is not of the form option=value"),
    ],
)
def test_impossible_changes_are_refused(changes, told):
    with pytest.raises(UserError, match=told):
        load_recipe(f"goyal-resnet50@{changes}")
