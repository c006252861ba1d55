"""The one rule that says what is a secret: by value, by the user's word, by a name that can mean nothing else."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.hidden_values import Hider, filled
from amlctl.core.secret_names import (
    MASK,
    carries_secret,
    has_secret_name,
    is_login_variable,
    is_secret,
    mask_command_line,
    masked,
    masked_values,
)

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
RANDOM = "a8f3K9dLq2ZxP0bVtR7w"
STORAGE_KEY = "Ab3/" * 21 + "Ab=="


@pytest.mark.parametrize(
    "name",
    [
        *("API_KEY", "apiKey", "--api-key", "WANDB_API_KEY", "client_secret", "--client-secret", "service.apiKey"),
        *("HF_TOKEN", "--hf-token", "GITHUBTOKEN", "token", "--access-token", "MY_TOKEN", "model.apiToken"),
        *("DbPassword", "DB_PASSWORD2", "--password", "PGPASSWORD", "X_SAS", "AZURE_STORAGE_CONNECTION_STRING"),
        *("aws_secret_access_key", "PASSWORD_VALUE", "--passphrase", "credentials"),
    ],
)
def test_names_that_can_mean_nothing_but_a_secret(name: str) -> None:
    assert has_secret_name(name)
    assert is_secret(name, "CANARYTAG")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("--pad-token", "x"), ("--pad-token", "<pad>"), ("--eos-token", "</s>"), ("EOS_TOKEN", "[SEP]")),
        *(("--label-key", "name"), ("--sort-key", "date"), ("--key", "value"), ("--primary-key", "user_id")),
        *(("--num-tokens", "5"), ("--max-tokens", "512"), ("num_key_value_heads", "8"), ("--token", "5")),
        *(("--tokenizer", "bert-base-uncased"), ("TOKENIZERS_PARALLELISM", "true"), ("--use-auth", "basic")),
        *(("--trigger-token", "sks"), ("--initializer-token", "toy"), ("--tokens", "many words"), ("--sigma", "0.5")),
        *(("--secret-size", "5"), ("PASSWORD_FILE", "/run/secrets/db"), ("--password", "$PASSWORD"), ("MONKEY", "x")),
        *(("--api-key", ""), ("--resume", "resnet50-imagenet1k-v2-20260101-120000-0a1b"), ("--use-token", "true")),
        *(("commit", "0123456789abcdef0123456789abcdef01234567"), ("--data", "s3://bucket/key"), ("--sas", "none")),
        ("--model", "https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct"),
        ("repository", "ssh://git@github.com/owner/name"),
    ],
)
def test_what_is_recorded_as_it_is(name: str, value: str) -> None:
    assert not is_secret(name, value)
    assert masked(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("https://a.example/c?sv=1&sig=abc%3D", "AccountName=x;AccountKey=abc==", "x?SharedAccessSignature=abc"),
        *("https://me:pw@host.example/", "http://u:p%40w@proxy:8080", "postgresql+psycopg://u:pw@h/db"),
        *("https://ghp_abcdefghijklmnopqrstuvwx@github.com/o/n", f"https://{RANDOM}@host/simple", "redis://:pw@h"),
        *("AKIAIOSFODNN7EXAMPLE", "hf_abcdefghijklmnopqrstuvwx", "sk-proj-abcdefghijklmnopqrstuvwx", JWT, STORAGE_KEY),
        "https://conda.anaconda.org/t/ab-12345678-abcd-1234-abcd-1234567890ab/channel",
        *("abc8Q~" + "x" * 34, "github_pat_11ABCDEFG0abcdefghijkl", f"Authorization: Bearer {RANDOM}"),
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_values_that_show_it_themselves(value: str) -> None:
    assert carries_secret(value)
    assert is_secret("note", value)
    assert MASK in masked(f"before {value} after")
    assert masked(masked(value)) == masked(value)


def test_a_mask_leaves_the_rest_of_a_url() -> None:
    reported = "cannot reach https://user:CANARY@pypi.example/simple?x=1: refused"
    assert masked(reported) == "cannot reach https://user:***@pypi.example/simple?x=1: refused"


def test_places_and_variables_in_a_url_stay() -> None:
    for text in ("https://u:${PIP_TOKEN}@host/simple", "https://u:<secret:AMLCTL_SECRET_ENVIRONMENT_1>@host/simple"):
        assert masked(text) == text


@pytest.mark.parametrize("value", [RANDOM, "550e8400-e29b-41d4-a716-446655440000", "0123456789abcdef" * 2])
def test_a_name_that_may_mean_one_asks_how_random_the_value_is(value: str) -> None:
    for name in ("--key", "--x-token", "auth", "WANDB_KEY"):
        assert is_secret(name, value)
        assert not is_secret(name, "a plain word")
    assert not is_secret("--run", value)


def test_tags_are_masked_by_name_and_by_value() -> None:
    tags = {"token": "CANARYTAG", "url": "https://u:p@h/x", "team": "vision", "pad_token": "x"}
    assert masked_values(tags) == {"token": MASK, "url": "https://u:***@h/x", "team": "vision", "pad_token": "x"}


def test_masking_leaves_the_rest_of_the_command_line() -> None:
    words = ["amlctl", "submit", "x.py", "--env", "TOKEN=s3cret-value", "--env=PIN=7", "--tag=token=abc", "--tag"]
    words += [
        "token=abcd",
        "--store",
        "https://a/c?sig=xyz",
        "--",
        "--epochs",
        "17",
        "--pad-token",
        "x",
        "--api-key",
        "V",
    ]
    assert mask_command_line(words, {"s3cret-value", "7"}) == [
        *("amlctl", "submit", "x.py", "--env", "TOKEN=***", "--env=PIN=***", "--tag=token=***", "--tag"),
        *(
            "token=***",
            "--store",
            "https://a/c?sig=***",
            "--",
            "--epochs",
            "17",
            "--pad-token",
            "x",
            "--api-key",
            "***",
        ),
    ]


def test_names_of_secrets_are_not_secrets() -> None:
    words = ["amlctl", "submit", "--secret", "dsn", "--secret=token", "--", "--secret", "CANARY", "--secret=CANARY"]
    assert mask_command_line(words, ()) == [*words[:7], "***", "--secret=***"]


def test_named_options_are_hidden_whatever_they_look_like() -> None:
    hider = Hider({}, ["patient-id", "dsn"])
    words = ["--patient-id", "smith", "--patient_id=-3", "-x", "--pad-token", "x", "dsn=plain"]
    hidden = hider.arguments(words)
    assert [word for word in hidden if "secret" not in word] == ["--patient-id", "-x", "--pad-token", "x"]
    assert filled(hidden, hider.variables) == words
    assert hider.setting("data.dsn", "plain", "").startswith("<secret:")
    assert hider.tags({"dsn": "plain", "a": "b"}) == {"dsn": MASK, "a": "b"}


def test_logins_of_amlctl() -> None:
    for name in ("AZURE_CLIENT_SECRET", "AZURE_OTHER_SECRET", "AZURE_PASSWORD", "MSI_SECRET", "IDENTITY_HEADER"):
        assert is_login_variable(name, "x")
    assert is_login_variable("AMLCTL_STORE", "https://a/c?sig=x")
    for name in ("AZURE_CLIENT_ID", "AMLCTL_STORE", "HF_TOKEN", "AZURE_STORAGE_ACCOUNT"):
        assert not is_login_variable(name, "x")


@given(st.lists(st.sampled_from(["--x", "a=b", "--token", "https://u:p@h/", "ghp_" + "a" * 24, "word", "k=v=w"])))
def test_what_was_hidden_comes_back_exactly(words: list[str]) -> None:
    hider = Hider({})
    hidden = hider.arguments(words)
    assert filled(hidden, hider.variables) == words
    assert not any(map(carries_secret, hidden))


@given(st.text())
def test_a_mask_is_final(text: str) -> None:
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "piece", ["a.", "eyJ-", "http://", "a://b@", "sig=", "AKIA", "Bearer a", "-----BEGIN PRIVATE KEY-----"]
)
def test_long_texts_take_time_in_proportion(piece: str) -> None:
    """A line of a log may be long and of whatever; a quadratic pattern would take minutes for it."""
    started = time.process_time()
    masked(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 20


def test_only_the_secret_of_an_address_is_hidden() -> None:
    hider = Hider({})
    hidden = hider.address("data", "https://a.blob.core.windows.net/c/x?sv=1&sig=CANARY")
    assert hidden == "https://a.blob.core.windows.net/c/x?sv=1&sig=<secret:AMLCTL_SECRET_INPUT_DATA>"
    assert hider.variables == {"AMLCTL_SECRET_INPUT_DATA": "CANARY"}
    assert masked(hidden) == hidden
