"""What clients of other hubs read, byte by byte on the wire."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

import pytest
from doorkit import ODD_PATH


async def test_a_repository_is_described_as_it_was_published(cold, shelf):
    answer = await cold.get(f"/api/models/{shelf.name}", params={"blobs": "true"})
    said = answer.json()

    assert answer.status_code == 200
    assert (said["id"], said["sha"], said["private"], said["gated"]) == (shelf.name, shelf.commit, False, False)
    assert said["pipeline_tag"] == "text-generation"
    assert said["library_name"] == "transformers"
    assert said["cardData"] == {
        "license": "mit",
        "language": ["en", "fr"],
        "tags": ["small", "odd_one"],
        "datasets": ["some/data"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    assert {"small", "license:mit", "dataset:some/data", "en"} <= set(said["tags"])
    assert said["config"] == {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    assert {row["rfilename"]: row["size"] for row in said["siblings"]} == {
        path: len(data) for path, data in shelf.files.items()
    }
    sums = {row["rfilename"]: row["lfs"]["sha256"] for row in said["siblings"] if row["size"]}
    assert sums == {path: hashlib.sha256(data).hexdigest() for path, data in shelf.files.items() if data}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["createdAt"])


@pytest.mark.parametrize("revision", ["main", "refs%2Fheads%2Fmain", "refs/heads/main"])
async def test_every_spelling_of_a_branch_is_its_tip(cold, shelf, revision):
    answer = await cold.get(f"/api/models/{shelf.name}/revision/{revision}")

    assert answer.json()["sha"] == shelf.commit


async def test_versions_and_commits_are_revisions(cold, shelf):
    first = shelf.first.removeprefix("b3:")[:40]
    for revision in ("1.0.0", first, "refs%2Ftags%2F1.0.0"):
        answer = await cold.get(f"/api/models/{shelf.name}/revision/{revision}")
        assert answer.json()["sha"] == first


async def test_the_same_commit_is_named_everywhere(cold, shelf):
    head = await cold.head(f"/{shelf.name}/resolve/main/config.json")
    refs = (await cold.get(f"/api/models/{shelf.name}/refs")).json()
    commits = (await cold.get(f"/api/models/{shelf.name}/commits/main")).json()

    assert head.headers["x-repo-commit"] == shelf.commit
    assert [(row["name"], row["targetCommit"]) for row in refs["branches"]] == [("main", shelf.commit)]
    assert [(row["name"], row["ref"]) for row in refs["tags"]] == [("1.0.0", "refs/tags/1.0.0")]
    assert commits[0]["id"] == shelf.commit
    assert [(row["title"], row["message"]) for row in commits] == [("say what it is", ""), ("begin", "with care")]


async def test_commits_come_in_pages(cold, shelf):
    first = await cold.get(f"/api/models/{shelf.name}/commits/main", params={"limit": "1"})
    second = await cold.get(first.links["next"]["url"])

    assert [row["title"] for row in first.json() + second.json()] == ["say what it is", "begin"]
    assert "next" not in second.links


async def test_a_tree_shows_folders_and_what_is_in_them(cold, shelf):
    top = (await cold.get(f"/api/models/{shelf.name}/tree/main")).json()
    whole = (await cold.get(f"/api/models/{shelf.name}/tree/main", params={"recursive": "true"})).json()
    sub = (await cold.get(f"/api/models/{shelf.name}/tree/main/sub")).json()

    assert {row["path"]: row["type"] for row in top} == {
        "README.md": "file", "config.json": "file", "empty": "file", "sub": "directory", "weights.onnx": "file",
    }  # fmt: skip
    assert {row["path"] for row in whole} == {*shelf.files, "sub"}
    assert [row["path"] for row in sub] == [ODD_PATH]
    empty = next(row for row in top if row["path"] == "empty")
    assert "lfs" not in empty
    assert empty["oid"] == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # of nothing, as git has it


async def test_a_tree_comes_in_pages_that_add_up(cold, shelf):
    url = f"/api/models/{shelf.name}/tree/main?recursive=true&limit=2"
    paths = []
    while url:
        answer = await cold.get(url)
        assert len(answer.json()) <= 2
        paths += [row["path"] for row in answer.json()]
        url = answer.links.get("next", {}).get("url")

    assert paths == sorted({*shelf.files, "sub"})


async def test_paths_are_looked_up_in_a_form_or_json(cold, shelf):
    url = f"/api/models/{shelf.name}/paths-info/main"
    wanted = {"paths": ["config.json", "sub", "nope"]}
    for body in ({"data": wanted}, {"json": wanted}):
        rows = (await cold.post(url, **body)).json()
        assert [(row["path"], row["type"]) for row in rows] == [("config.json", "file"), ("sub", "directory")]


async def test_a_folder_in_a_dataset_is_no_model(cold, shelf):
    name = f"{shelf.namespace}/words"
    there = await cold.get(f"/datasets/{name}/resolve/main/train.csv")
    here = await cold.get(f"/api/models/{name}")

    assert there.text == "text,label\na,1\n"
    assert (here.status_code, here.headers["x-error-code"]) == (404, "RepoNotFound")


async def test_head_answers_without_any_content(cold, shelf, tmp_path):
    for path, data in shelf.files.items():
        answer = await cold.head(f"/{shelf.name}/resolve/main/{quote(path)}", headers={"accept-encoding": "identity"})
        digest = hashlib.sha256(data).hexdigest()
        assert answer.status_code == 200
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{digest}"'
        assert answer.headers["x-linked-size"] == str(len(data))
        assert answer.headers["accept-ranges"] == "bytes"
        assert not [name for name in answer.headers if "xet" in name]
    assert list((tmp_path / "cold" / "store" / "objects").glob("??/*")) == []


async def test_files_come_as_they_were_published(cold, shelf):
    for path, data in shelf.files.items():
        answer = await cold.get(f"/{shelf.name}/resolve/{shelf.commit}/{quote(path)}")
        assert answer.content == data, path


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("0-0", 0, 1),
        ("5-", 5, None),
        ("-7", -7, None),
        ("0-99999999999", 0, None),
        ("2000000-7000000", 2_000_000, 7_000_001),
        ("-99999999999", 0, None),
        ("5-" + "9" * 40, 5, None),
    ],
)
async def test_a_range_is_given(cold, shelf, asked, begin, end):
    data = shelf.files["weights.onnx"]
    answer = await cold.get(f"/{shelf.name}/resolve/main/weights.onnx", headers={"range": f"bytes={asked}"})

    wanted = data[begin:end]
    first = begin if begin >= 0 else len(data) + begin
    assert (answer.status_code, answer.content == wanted) == (206, True)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(data)}"


@pytest.mark.parametrize("asked", ["bytes=9000000-", "bytes=-0", "bytes=9000000-9000001", f"bytes={'9' * 40}-"])
async def test_a_range_without_a_byte_is_refused(door, shelf, asked):
    answer = await door.get(f"/{shelf.name}/resolve/main/weights.onnx", headers={"range": asked})

    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */9000000")


@pytest.mark.parametrize("asked", ["bytes=1-2,5-6", "bytes=5-2", "bytes=-", "chunks=1-2", "nonsense", "bytes=x-1"])
async def test_a_range_that_is_none_gives_the_whole_file(door, shelf, asked):
    answer = await door.get(f"/{shelf.name}/resolve/main/config.json", headers={"range": asked})

    assert (answer.status_code, answer.content) == (200, shelf.files["config.json"])


async def test_conditions_are_kept(door, shelf):
    url = f"/{shelf.name}/resolve/main/config.json"
    etag = (await door.head(url)).headers["etag"]

    same = await door.get(url, headers={"if-none-match": f'"x", W/{etag}'})
    other = await door.get(url, headers={"if-none-match": '"x"'})
    part = await door.get(url, headers={"if-range": etag, "range": "bytes=0-1"})
    whole = await door.get(url, headers={"if-range": '"x"', "range": "bytes=0-1"})

    assert (same.status_code, same.content, same.headers["x-repo-commit"]) == (304, b"", shelf.commit)
    assert [answer.status_code for answer in (other, part, whole)] == [200, 206, 200]


async def test_who_goes_on_with_a_file_that_is_another_by_now_is_told(door, shelf):
    url = f"/{shelf.name}/resolve/main/config.json"
    etag = (await door.head(url)).headers["etag"]

    async def status(named: str) -> int:
        answer = await door.get(url, headers={"if-match": named, "range": "bytes=2-"})
        return answer.status_code

    assert [await status(named) for named in (etag, f'"x", {etag}', "*")] == [206, 206, 206]
    assert [await status(named) for named in ('"x"', f"W/{etag}", "nonsense")] == [412, 412, 412]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/{ns}/nope", 404, "RepoNotFound"),
        ("/api/models/nobody/parrot", 404, "RepoNotFound"),
        ("/api/models/a..b/parrot", 404, "RepoNotFound"),
        ("/api/models/{name}/revision/9.9.9", 404, "RevisionNotFound"),
        ("/api/models/{name}/revision/nope", 404, "RevisionNotFound"),
        ("/api/models/{name}/revision/refs%2Fpr%2F1", 404, "RevisionNotFound"),
        ("/api/models/{name}/revision/" + "0" * 40, 404, "RevisionNotFound"),
        ("/api/models/{name}/revision/..%2F..%2Fetc", 404, "RevisionNotFound"),
        ("/api/models/{name}/tree/main/nope", 404, "EntryNotFound"),
        ("/{name}/resolve/main/nope", 404, "EntryNotFound"),
        ("/{name}/resolve/main/..%2F..%2Fetc%2Fpasswd", 404, "EntryNotFound"),
        ("/{name}/resolve/main/sub", 404, "EntryNotFound"),
        ("/{name}/resolve/nope/config.json", 404, "RevisionNotFound"),
        ("/{ns}/nope/resolve/main/config.json", 404, "RepoNotFound"),
        ("/spaces/{name}/resolve/main/app.py", 404, "RepoNotFound"),
        ("/api/spaces/{name}", 404, "RepoNotFound"),
        ("/api/agent-harnesses", 404, None),
        ("/api/collections", 404, None),
        ("/", 404, None),
        ("/{name}/resolve/main/%FF", 400, None),
        ("/{name}/resolve/main/a%00b", 400, None),
    ],
)
async def test_what_is_not_there_is_told_by_its_code(door, shelf, path, status, code):
    url = path.format(ns=shelf.namespace, name=shelf.name)
    for method in ("GET", "HEAD") if "/resolve/" in url else ("GET",):
        answer = await door.request(method, url)
        assert (answer.status_code, answer.headers.get("x-error-code")) == (status, code)
        assert answer.headers["x-error-message"]
        if method == "GET":
            assert answer.json()["error"]
        if code == "EntryNotFound":
            assert answer.headers["x-repo-commit"] == shelf.commit


async def test_only_the_token_of_the_node_says_who_one_is(door, shelf):
    mine = await door.get("/api/whoami-v2")
    none = await door.get("/api/whoami-v2", headers={"authorization": ""})
    other = await door.get("/api/whoami-v2", headers={"authorization": "Bearer hf_other"})
    reads = await door.get(f"/api/models/{shelf.name}", headers={"authorization": "Bearer hf_other"})

    assert (mine.status_code, mine.json()["name"], mine.json()["orgs"]) == (200, shelf.namespace, [])
    assert (none.status_code, other.status_code, reads.status_code) == (401, 401, 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "attacker.example"},
        {"host": "127.0.0.1.attacker.example:80"},
        {"origin": "https://attacker.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
async def test_pages_of_other_sites_are_refused(door, shelf, headers):
    upload = "/upload/" + "a" * 43
    for method, path in (("GET", f"/api/models/{shelf.name}"), ("POST", "/api/repos/create"), ("PUT", upload)):
        answer = await door.request(method, path, headers=headers)
        assert answer.status_code == 403


async def test_a_forwarded_port_is_the_same_door(door, shelf):
    answer = await door.get(
        f"/api/models/{shelf.name}/tree/main", params={"limit": "1"}, headers={"host": "localhost:4711"}
    )

    assert answer.links["next"]["url"].startswith("http://localhost:4711/api/")
