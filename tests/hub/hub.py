"""A hub on this machine that answers as huggingface.co does, with the 90 repositories in miniature.

    python tests/hub/hub.py FOLDER       makes the miniatures in FOLDER if they are not there, and serves them

It does what huggingface_hub asks of the real one: /api/{models,datasets}/NAME with /revision, /tree (in pages), /refs,
/commits, /paths-info and /auth-check; /NAME/resolve/REVISION/FILE with HEAD, where small files are redirected to
/api/resolve-cache and large ones to another host with a signed address, which answers to ranges; 401 for what is not
there, 403 for a licence that was not accepted, 404 for a revision that is not there, 307 for a repository that moved. A
revision is a branch, refs/pr/N or a full commit; a short one is none, as the hub's documentation says.

What it does not do: the Xet protocol, by which newer clients fetch large files; they fall back to this one.
"""

import hashlib
import json
import re
import shutil
import sys
import threading
import time
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from repositories import REPOSITORIES, expand, sha1

LARGE = re.compile(r".*\.(safetensors|bin|parquet|gz|h5|msgpack|onnx|pt|pth|ot|model|jpg)")  # .gitattributes' patterns
LIMIT = 10 << 20  # larger files are stored apart from git whatever their suffix
PAGE = 20  # entries of a tree that are listed at a time; the hub: 1000
TOKEN = "hf_of_someone_who_accepted_the_licences"


# --- the miniatures on disk: {kind}s/{name}/{commit}/{file}


def build(folder: Path, only: set[str] | None = None) -> None:
    """Make the miniatures that are not there: all of them, or those of some repositories (`datasets/mteb/nq`)."""
    import miniatures

    for key, repository in REPOSITORIES.items():
        if only is not None and key not in only:
            continue
        for ref, commit in repository.commits.items():
            target = folder / key / commit
            if target.is_dir():
                continue
            if repository.kind == "model":
                import models  # torch and transformers

                files = models.write(repository, ref)
            else:
                files = miniatures.write(repository, ref)
            partial = target.with_name(f".{commit}")
            shutil.rmtree(partial, ignore_errors=True)
            for name, content in files.items():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            (partial / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
            partial.rename(target)


class Refused(Exception):
    """An error of the hub: status, code, message."""


class Hub:
    """The state of a server: its miniatures, and what goes wrong.

    gone: repositories that are not there. Gated ones let those in who show a token of `tokens`. broken: names of files
    whose first transfer stops half way. busy: how many requests are answered with 429 before the first answer.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.gone: set[str] = set()
        self.tokens = {TOKEN}
        self.broken: set[str] = set()
        self.busy = 0
        self.requests: list[str] = []  # method and path of every one
        self.port = 0

    def repository(self, kind: str, name: str):
        """A repository, under its name or an older one; `Refused` where there is none."""
        key = f"{kind}/{name}"
        if key in REPOSITORIES and key not in self.gone:
            return REPOSITORIES[key]
        for moved in REPOSITORIES.values():
            if f"{moved.kind}s/{moved.moved_from}" == key and key not in self.gone:
                return moved
        if kind == "datasets" and name.lower() == "xlangai/bright":  # the hub does not look at the case of a name
            return self.repository(kind, "xlangai/BRIGHT")
        raise Refused(401, "RepoNotFound", "Invalid username or password.")

    def commit(self, repository, revision: str) -> str:
        commits = repository.commits
        if revision in commits:
            return commits[revision]
        if revision in commits.values():
            return revision
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def files(self, repository, commit: str) -> dict[str, Path]:
        root = self.folder / f"{repository.kind}s" / repository.name / commit
        return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}

    def entry(self, repository, name: str, path: Path) -> dict:
        """A file as a tree lists it."""
        size, (oid, sha256) = path.stat().st_size, hashes(path)
        entry = {"type": "file", "oid": oid, "size": size, "path": name}
        stored_apart = [name for word in repository.lfs.split() for name in expand(word)]
        if LARGE.fullmatch(name) or name in stored_apart or size > LIMIT:
            entry |= {"lfs": {"oid": sha256, "size": size, "pointerSize": 134}}
        return entry


@lru_cache(None)
def hashes(path: Path) -> tuple[str, str]:
    """git's name of a file, and its SHA-256."""
    content = path.read_bytes()
    return sha1(b"blob %d\0" % len(content) + content), hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def do_GET(self):
        hub, address = self.hub, urlsplit(self.path)
        hub.requests.append(f"{self.command} {unquote(address.path)}")
        self.query = parse_qs(address.query)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = parse_qs(self.rfile.read(length).decode()) if length else {}
        if hub.busy:
            hub.busy -= 1
            return self.answer(b"", 429, **{"Retry-After": "0"})
        try:
            self.route(address.path.strip("/"))
        except Refused as refused:
            status, code, message = refused.args
            self.answer(
                json.dumps({"error": message}).encode(), status, **{"X-Error-Code": code, "X-Error-Message": message}
            )

    def route(self, path: str):
        parts = path.split("/")
        if parts[0] == "cdn":
            return self.stored_apart(parts[1])
        if parts[:2] == ["api", "whoami-v2"]:
            if not self.admitted():
                raise Refused(401, "", "Invalid username or password.")
            return self.json({"type": "user", "name": "someone", "auth": {"accessToken": {"role": "read"}}})
        if parts[:2] == ["api", "resolve-cache"]:
            return self.small_file(parts[2], parts[3:])
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            return self.api(parts[1], parts[2:])
        if "resolve" in parts:
            kind, parts = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
            at = parts.index("resolve")
            return self.resolve(kind, "/".join(parts[:at]), unquote(parts[at + 1]), unquote("/".join(parts[at + 2 :])))
        raise Refused(404, "EntryNotFound", "Sorry, we can't find the page you are looking for.")

    def admitted(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") in self.hub.tokens

    # --- metadata

    def api(self, kind: str, parts: list[str]):
        verbs = ("revision", "tree", "refs", "commits", "paths-info", "auth-check")
        at = next((number for number, part in enumerate(parts) if number and part in verbs), len(parts))
        name, verb, rest = (
            "/".join(parts[:at]),
            *(parts[at : at + 1] or [""]),
            [unquote(part) for part in parts[at + 1 :]],
        )
        hub, repository = self.hub, self.hub.repository(kind, name)
        if repository.name != name:
            return self.moved(f"/api/{kind}/{'/'.join([repository.name, *parts[at:]])}")
        if verb == "auth-check":
            self.check_gate(repository)
            return self.json({})
        if verb == "refs":
            refs = [{"name": ref.removeprefix("refs/pr/"), "ref": ref if ref.startswith("refs/") else f"refs/heads/{ref}", "targetCommit": commit} for ref, commit in repository.commits.items()]  # fmt: skip
            pulls = [ref for ref in refs if ref["ref"].startswith("refs/pr/")]
            return self.json({"branches": [ref for ref in refs if ref not in pulls], "tags": [], "converts": [], "pullRequests": pulls})  # fmt: skip
        commit = hub.commit(repository, rest[0] if rest else "main")
        files = hub.files(repository, commit)
        if verb == "commits":
            return self.json([{"id": commit, "title": "Upload", "date": "2024-10-01T00:00:00.000Z", "authors": [], "message": ""}])  # fmt: skip
        if verb == "tree":
            return self.tree(repository, files, "/".join(rest[1:]))
        if verb == "paths-info":
            wanted = self.body.get("paths", [])
            return self.json([hub.entry(repository, name, files[name]) for name in wanted if name in files])
        entries = [hub.entry(repository, name, path) for name, path in files.items()]
        sizes = self.query.get("blobs")
        siblings = [
            {"rfilename": entry["path"]}
            | ({"size": entry["size"], "blobId": entry["oid"]} if sizes else {})
            | (
                {"lfs": {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 134}}
                if sizes and "lfs" in entry
                else {}
            )
            for entry in entries
        ]
        found = {"_id": commit[:24], "id": repository.name, "author": repository.name.split("/")[0], "sha": commit}
        found |= {"lastModified": "2024-10-01T00:00:00.000Z", "createdAt": "2024-10-01T00:00:00.000Z", "private": False}
        found |= {"gated": "manual" if repository.gated else False, "disabled": False, "downloads": 1, "likes": 0}
        found |= {"tags": [], "siblings": siblings, "usedStorage": sum(entry["size"] for entry in entries)}
        if kind == "models":
            found |= {"modelId": repository.name}
            if "config.json" in files:
                config = json.loads(files["config.json"].read_text())
                found["config"] = {key: config[key] for key in ("architectures", "model_type")}
        self.json(found)

    def tree(self, repository, files, place: str):
        entries = [
            self.hub.entry(repository, name, path)
            for name, path in files.items()
            if not place or name.startswith(f"{place}/")
        ]
        if (self.query.get("recursive") or ["false"])[0].lower() == "true":
            folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
            entries += [{"type": "directory", "oid": sha1(name), "size": 0, "path": name} for name in sorted(folders)]
        else:
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(f"{place}/")]
        first = int((self.query.get("cursor") or ["0"])[0])
        headers = {}
        if first + PAGE < len(entries):
            query = "&".join(f"{key}={quote(value[0])}" for key, value in self.query.items() if key != "cursor")
            path = urlsplit(self.path).path
            headers["Link"] = f'<http://127.0.0.1:{self.hub.port}{path}?{query}&cursor={first + PAGE}>; rel="next"'
        self.json(entries[first : first + PAGE], **headers)

    # --- files

    def check_gate(self, repository):
        if repository.gated and not self.admitted():
            message = f"Access to model {repository.name} is restricted and you are not in the authorized list."
            raise Refused(403 if self.headers.get("Authorization") else 401, "GatedRepo", message)

    def resolve(self, kind: str, name: str, revision: str, file: str):
        hub, repository = self.hub, self.hub.repository(kind, name)
        prefix = "datasets/" if kind == "datasets" else ""
        if repository.name != name:
            return self.moved(f"/{prefix}{repository.name}/resolve/{quote(revision, safe='')}/{quote(file)}")
        commit = hub.commit(repository, revision)
        self.check_gate(repository)
        files = hub.files(repository, commit)
        if file not in files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        entry = hub.entry(repository, file, files[file])
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(entry["size"])}
        if "lfs" in entry:
            sha256 = entry["lfs"]["oid"]
            hub.apart = getattr(hub, "apart", {}) | {sha256: (file, files[file])}
            place = f"http://localhost:{hub.port}/cdn/{sha256}?X-Amz-Signature=of-this-hour"
            return self.answer(b"", 302, Location=place, **headers, **{"X-Linked-ETag": f'"{sha256}"'})
        place = f"/api/resolve-cache/{kind}/{repository.name}/{commit}/{quote(file)}"
        self.answer(b"", 307, Location=place, **headers, **{"X-Linked-ETag": f'"{entry["oid"]}"'})

    def small_file(self, kind: str, parts: list[str]):
        at = next(number for number, part in enumerate(parts) if re.fullmatch("[0-9a-f]{40}", part))
        repository = self.hub.repository(kind, "/".join(parts[:at]))
        self.check_gate(repository)
        name = unquote("/".join(parts[at + 1 :]))
        path = self.hub.files(repository, parts[at])[name]
        headers = {"ETag": f'"{hashes(path)[0]}"', "X-Repo-Commit": parts[at]}
        self.content(name, path, headers)

    def stored_apart(self, sha256: str):
        if self.headers.get("Authorization"):  # it would be the user's token in a stranger's hands
            raise Refused(400, "", "Only one auth mechanism allowed")
        self.content(*self.hub.apart[sha256], {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})

    def content(self, name: str, path: Path, headers: dict):
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        status = 200
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            content, status = content[first : last + 1], 206
        broken = self.command == "GET" and not asked and name in self.hub.broken
        if broken:
            self.hub.broken.discard(name)
        self.answer(content, status, broken=broken, **headers)

    # --- answers

    def moved(self, place: str):
        query = urlsplit(self.path).query
        self.answer(b"", 307, Location=place + (f"?{query}" if query else ""))

    def json(self, value, **headers):
        self.answer(json.dumps(value).encode(), **headers, **{"Content-Type": "application/json; charset=utf-8"})

    def answer(self, content: bytes, status: int = 200, *, broken: bool = False, **headers):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if broken else content)
            if broken:
                self.close_connection = True

    def log_message(self, *_):
        pass


class Server:
    """The hub in a thread; a `with` block. `hub` is its state, `address` what HF_ENDPOINT is set to."""

    def __init__(self, folder: Path, port: int = 0):
        self.hub = Hub(folder)
        handler = type("ThisHandler", (Handler,), {"hub": self.hub})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.hub.port = self.server.server_port
        self.address = f"http://127.0.0.1:{self.hub.port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    build(Path(sys.argv[1]))
    with Server(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0) as server:
        print(server.address, flush=True)
        while True:
            time.sleep(3600)
