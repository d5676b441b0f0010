"""Addresses of hooks: secrets are refused where they would be stored, and read at delivery."""

from __future__ import annotations

import pytest

from tests.support.specs import make_spec
from tunesvc.errors import SpecError
from tunesvc.spec.checks import find_issues
from tunesvc.spec.sections.hook_address import resolve

WITH_SECRETS = {
    "https://user:secretpw@example.org/hook": "password",
    "https://ghp_abc@example.org/hook": "password",
    "https://example.org/hook?id=3&access_token=abc": "access_token",
    "https://example.org/hook?apikey=abc": "apikey",
    "https://example.org/hook?sig=abc&id=$ID": "sig",
    "https://$USER:secretpw@example.org/hook": "password",
    "python deploy.py --api-key=abc": "--api-key",
    "python deploy.py --token abc -v": "--token",
    "curl https://user:secretpw@example.org/hook": "password",
}
WITHOUT = [
    "https://example.org/hook?id=3",
    "HTTPS://example.org:8080/hook?monkey=3&token=",
    "https://user:$PASSWORD@example.org/hook?token=${TOKEN}",
    "https://$TOKEN@example.org/hook",
    "$SLACK_URL",
    "python deploy.py --token-file /run/token",
    "python deploy.py --ask-password --verbose",
    "python 'unclosed",
    "http://[::1/",
]


@pytest.mark.parametrize("address", [*WITH_SECRETS, *WITHOUT])
def test_a_secret_is_refused_before_it_is_stored(address: str) -> None:
    data = {"source": "rows.csv", "target": "y"}
    issues = find_issues(make_spec(data=data, watch={"on_promote": address}))
    found = [issue.text for issue in issues if issue.path == ("watch", "on_promote")]
    if address in WITHOUT:
        assert found == []
    else:
        (text,) = found
        assert f"has a secret, '{WITH_SECRETS[address]}'" in text
        assert "secretpw" not in text


def test_variables_of_a_url_are_read_at_delivery() -> None:
    environment = {"TOKEN": "abc", "SLACK_URL": "https://hooks.example.org/x", "EMPTY": ""}
    assert resolve("https://host/?t=$TOKEN&u=${TOKEN}", environment) == "https://host/?t=abc&u=abc"
    assert resolve("$SLACK_URL", environment) == "https://hooks.example.org/x"
    assert resolve("sh -c 'echo $TOKEN $NO'", environment) == "sh -c 'echo $TOKEN $NO'"
    for name in ("EMPTY", "NO"):
        with pytest.raises(SpecError, match=f"the environment variable {name} is not set"):
            resolve(f"https://host/${name}", environment)
    with pytest.raises(SpecError, match="holds no http or https URL") as raised:
        resolve("$TOKEN", environment)
    assert "abc" not in str(raised.value)
