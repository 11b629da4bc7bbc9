"""Passwords of addresses are shown nowhere."""

from __future__ import annotations

from headrace.address import hidden, shown


def test_only_the_password_goes() -> None:
    assert shown("https://bob:a:b!c@mlflow.example.org:5000/x?y=1") == "https://bob:***@mlflow.example.org:5000/x?y=1"
    for plain in ("sqlite:////tmp/mlflow.db", "http://127.0.0.1:5000", "postgresql://bob@db/mlflow", "a: b@c"):
        assert shown(plain) == plain
    assert (
        shown("no way to http://:key@host, or http://bob:x@host")
        == "no way to http://:***@host, or http://bob:***@host"
    )


def test_it_goes_from_texts_that_do_not_have_the_whole_address() -> None:
    assert hidden("FATAL: password s3cret", "postgresql://bob:s3cret@db/x") == "FATAL: password ***"
    assert hidden("refused", "sqlite:///mlflow.db") == "refused"
