from mtl_tabular.boosting import ProgressBar, RMTGBRegressor, Round


def test_a_bar_a_block(capsys):
    bar = ProgressBar()
    for block in ("shared", "own"):
        for k in (1, 2):
            bar(Round(block=block, round=k, rounds=2, loss=0.5, held_out=float("nan")))
    bar.close()
    shown = capsys.readouterr().out
    assert "shared" in shown
    assert "own" in shown
    assert "2/2" in shown
    assert "held out" not in shown
    bar.close()  # twice is no harm


def test_from_the_estimator(capsys):
    X, y = [[float(i)] for i in range(40)], [float(i) for i in range(40)]
    RMTGBRegressor(shared_rounds=3, group_rounds=0, task_rounds=0, progress=True).fit(X, y)
    assert "held out" in capsys.readouterr().out
