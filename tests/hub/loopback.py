"""A small Hub on a loopback port: the protocol that huggingface_hub speaks, over repositories in memory.

Downloads: model info, trees, HEAD and GET of files with ETag, X-Repo-Commit and Range; large files through a redirect
to another address, as the Hub's CDN is.  Uploads: creation, preupload, Git LFS batch, PUT and verify, commits as NDJSON.
Faults on demand: connections that drop inside a file, errors, private and gated repositories.
"""

import base64
import hashlib
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"


def is_large(path):
    return path.endswith(".safetensors")


def etag(path, content):
    """SHA-256 of large files, Git's blob id of the others."""
    return (
        hashlib.sha256(content).hexdigest()
        if is_large(path)
        else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    )


@dataclass
class Repository:
    """Files by commit, commits by branch or tag."""

    commits: dict = field(default_factory=dict)
    refs: dict = field(default_factory=dict)

    def commit(self, files, *refs):
        digest = hashlib.sha1(str(len(self.commits)).encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + etag(path, content).encode())
        commit = digest.hexdigest()
        self.commits[commit] = dict(files)
        self.refs.update(dict.fromkeys(refs or ("main",), commit))
        return commit

    def resolve(self, revision):
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class State:
    """What the server has, and how it misbehaves.

    requests: (method, path, Range or None).  drops: file name -> bytes after which its next answers break off.
    statuses: repository -> status of every answer about it.  slow: file name -> seconds a MiB takes.
    hung_up: files that clients did not read to the end.
    """

    repositories: dict = field(default_factory=dict)
    private: set = field(default_factory=set)
    gated: set = field(default_factory=set)
    large: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    drops: dict = field(default_factory=dict)
    statuses: dict = field(default_factory=dict)
    slow: dict = field(default_factory=dict)
    hung_up: list = field(default_factory=list)
    commit_messages: list = field(default_factory=list)
    url: str = ""
    cdn: str = ""

    def add(self, name, folder, *refs):
        """A folder's files as a commit; returns its hash."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.repositories.setdefault(name, Repository()).commit(files, *refs)

    def files(self, name, revision="main"):
        repository = self.repositories[name]
        return repository.commits[repository.resolve(revision)]

    def downloads(self):
        """Names of the files whose content was asked for, in order."""
        asked = [path for method, path, _ in self.requests if method == "GET" and not path.startswith("api/")]
        return [self.large[p.removeprefix("cdn/")][0] if p.startswith("cdn/") else p.split("/")[-1] for p in asked]


class Refusal(Exception):
    def __init__(self, status, code="", message=""):
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.serve()

    do_GET = do_POST = do_PUT = do_HEAD

    def serve(self):
        url = urlsplit(self.path)
        path, self.query = unquote(url.path).lstrip("/"), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.state.requests.append((self.command, path, self.headers.get("Range")))
        try:
            self.route(path)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self.reply(refusal.status, b"{}", {k: v for k, v in headers.items() if v})

    def route(self, path):
        if path == "api/repos/create":
            self.create()
        elif path == "api/validate-yaml":
            assert json.loads(self.body)["content"].startswith("---\n")
            self.reply_json({"errors": [], "warnings": []})
        elif path.startswith("cdn/"):
            self.large_file(path.removeprefix("cdn/"))
        elif path.startswith("api/models/"):
            owner, name, *rest = path.removeprefix("api/models/").split("/")
            self.api(f"{owner}/{name}", rest)
        elif ".git/info/lfs/" in path:
            self.lfs(path.split(".git/")[0])
        else:
            owner, name, kind, revision, *file = path.split("/")
            assert kind == "resolve"
            self.file(f"{owner}/{name}", revision, "/".join(file))

    def repository(self, name, write=False):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if name in self.state.statuses:
            raise Refusal(self.state.statuses[name])
        if token and token != TOKEN:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        if write and not token:
            raise Refusal(401, message="Invalid username or password.")
        if name not in self.state.repositories or (name in self.state.private and not token):
            raise Refusal(404 if token else 401, "RepoNotFound" if token else "", "Repository not found")
        if name in self.state.gated and not token and self.command != "POST":
            raise Refusal(401, "GatedRepo", f"Access to model {name} is restricted")
        return self.state.repositories[name]

    def files(self, name, revision):
        repository = self.repository(name)
        commit = repository.resolve(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        return commit, repository.commits[commit]

    def api(self, name, rest):
        if rest[:1] == ["preupload"]:
            self.preupload(name)
        elif rest[:1] == ["commit"]:
            self.commit(name, rest[1])
        elif rest[:1] == ["tree"]:
            _, files = self.files(name, rest[1])
            self.reply_json([self.entry(path, content) for path, content in files.items()])
        else:
            commit, files = self.files(name, rest[1] if rest[:1] == ["revision"] else "main")
            sizes = "blobs" in self.query
            siblings = [{"rfilename": p} | ({"size": len(c)} if sizes else {}) for p, c in files.items()]
            self.reply_json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})

    def entry(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
        if is_large(path):
            entry["lfs"] = {"oid": etag(path, content), "size": len(content), "pointerSize": 134}
        return entry

    def file(self, name, revision, path):
        commit, files = self.files(name, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(path, content)}"'}
        if not is_large(path):
            self.content(path, content, headers)
            return
        self.state.large[etag(path, content)] = (path, content)
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": headers["ETag"]}
        address = f"{self.state.cdn}/cdn/{etag(path, content)}"
        self.reply(302, b"", headers | linked | {"Location": address})

    def large_file(self, oid):
        if self.command == "PUT":
            assert hashlib.sha256(self.body).hexdigest() == oid
            self.state.large[oid] = (None, self.body)
            self.reply(200, b"")
        else:
            path, content = self.state.large[oid]
            self.content(path, content, {"ETag": f'"{oid}"'})

    def content(self, path, content, headers):
        """All of it or the range asked for; perhaps not to the end."""
        wanted, status, total = self.headers.get("Range"), 200, len(content)
        if wanted is not None:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            content, status = content[start:], 206
            headers |= {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
        if self.command == "GET" and path in self.state.slow:
            self.trickle(path, content, headers)
            return
        drops = self.state.drops.get(path)
        if self.command == "GET" and drops:
            self.reply(status, content[: drops.pop(0)], headers | {"Content-Length": str(len(content))})
            self.close_connection = True
        else:
            self.reply(status, content, headers | {"Accept-Ranges": "bytes"})

    def trickle(self, path, content, headers):
        """A MiB at a time, until the client hangs up."""
        self.reply(200, b"", headers | {"Content-Length": str(len(content))})
        try:
            for start in range(0, len(content), 1 << 20):
                self.wfile.write(content[start : start + (1 << 20)])
                time.sleep(self.state.slow[path])
        except OSError:
            self.state.hung_up.append(path)
            self.close_connection = True

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self.headers.get("Authorization"):
            raise Refusal(401, message="Invalid username or password.")
        if name in self.state.statuses:
            raise Refusal(self.state.statuses[name])
        exists = name in self.state.repositories
        if not exists:
            self.state.repositories[name] = Repository()
            self.state.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
            self.state.private |= {name} if asked.get("visibility") == "private" or asked.get("private") else set()
        self.reply_json({"url": f"{self.state.url}/{name}"}, status=409 if exists else 200)

    def preupload(self, name):
        self.repository(name, write=True)
        files = [
            {"path": f["path"], "uploadMode": "lfs" if is_large(f["path"]) else "regular", "shouldIgnore": False}
            for f in json.loads(self.body)["files"]
        ]
        self.reply_json({"files": files, "commitOid": self.state.repositories[name].resolve("main")})

    def lfs(self, name):
        self.repository(name, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            known = (
                {} if asked["oid"] in self.state.large else {"upload": {"href": f"{self.state.url}/cdn/{asked['oid']}"}}
            )
            objects.append(asked | ({"actions": known} if known else {}))
        self.reply_json({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")

    def commit(self, name, branch):
        repository = self.repository(name, write=True)
        files = dict(self.state.files(name, branch))
        for line in self.body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                self.state.commit_messages.append(value["summary"])
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert operation["key"] == "lfsFile"
                files[value["path"]] = self.state.large[value["oid"]][1]
        commit = repository.commit(files, branch)
        self.reply_json({"success": True, "commitOid": commit, "commitUrl": f"{self.state.url}/{name}/commit/{commit}"})

    def reply_json(self, value, status=200, content_type="application/json"):
        self.reply(status, json.dumps(value).encode(), {"Content-Type": content_type})

    def reply(self, status, content, headers=()):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | dict(headers)).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that was killed hangs up on us


@contextmanager
def running_hub():
    """The state of a server that runs until the block ends."""
    state = State()
    server = Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_port}"
    state.cdn = f"http://localhost:{server.server_port}"  # another host: the client takes metadata before it follows
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
