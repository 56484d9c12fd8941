"""What a card calls a licence, and what SPDX calls it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2phub.core import licenses
from p2phub.core.licenses import to_spdx

# docs/hub/repositories-licenses.md of huggingface/hub-docs, and the ids added since.
HUB_IDS = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
    cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c
    ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql
    ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2
    llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma other
""".split()  # noqa: SIM905  as a list it would fill a page


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("mit", "MIT"),
        ("cc-by-4.0", "CC-BY-4.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("bsl-1.0", "BSL-1.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("gpl", "GPL-1.0-or-later"),
        ("lgpl-lr", "LGPLLR"),
        ("odc-by", "ODC-By-1.0"),
        ("wtfpl", "WTFPL"),
        ("openrail", "LicenseRef-openrail"),
        ("openrail++", "LicenseRef-openrail-plus-plus"),
        ("llama3.1", "LicenseRef-llama3.1"),
        ("other", "LicenseRef-other"),
        ("  Apache-2.0\n", "Apache-2.0"),
        ("MIT or apache-2.0", "MIT OR Apache-2.0"),
        ("mit AND (isc OR Zlib)", "MIT AND (ISC OR Zlib)"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("gpl-2.0-only with Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("LicenseRef-house-rules", "LicenseRef-house-rules"),
        ("MIT AND DocumentRef-a:LicenseRef-b", "MIT AND DocumentRef-a:LicenseRef-b"),
    ],
)
def test_a_known_licence_has_an_spdx_expression(text: str, spdx: str) -> None:
    assert to_spdx(text) == spdx


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "unknown",
        "NOASSERTION",
        "my own licence",
        "LicenseRef-",
        "LicenseRef-a/b",
        "LicenseRef-two words",
        "MIT OR",
        "MIT ISC",
        "MIT WITH ISC",
        "Classpath-exception-2.0",
        "(MIT",
        "()",
        "( OR MIT",
        "MIT\0",
        "\ud800",
        "MIT OR " * 100 + "MIT",
        "(" * 250 + "MIT" + ")" * 250,
        "a" * 100_000,
    ],
)
def test_what_is_no_licence_has_none(text: str) -> None:
    spdx = to_spdx(text)

    # Nested parentheses say nothing, but are an expression.
    assert spdx in (None, "MIT")


@pytest.mark.parametrize("hub_id", HUB_IDS)
def test_every_licence_of_the_hub_is_known(hub_id: str) -> None:
    spdx = to_spdx(hub_id)

    assert spdx is not None
    assert to_spdx(hub_id.upper()) == spdx
    assert to_spdx(spdx) == spdx


@settings(deadline=None)  # the first example imports license_expression
@given(
    st.text(max_size=30)
    | st.lists(
        st.sampled_from(["MIT", "isc", "GPL-2.0+", "OR", "and", "WITH", "(", ")", "LicenseRef-a", "other", "+", ":"]),
        max_size=8,
    ).map(" ".join)
)
def test_any_text_has_none_or_an_expression_that_stays_as_it_is(text: str) -> None:
    spdx = to_spdx(text)

    if spdx is not None:
        assert to_spdx(spdx) == spdx
        assert len(spdx) <= licenses.TEXT_LENGTH_MAX


def test_importing_the_module_does_not_import_the_parser() -> None:
    code = "import sys, p2phub.core.licenses; sys.exit('license_expression' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
