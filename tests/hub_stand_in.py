"""A stand-in of the hub's HTTP endpoint: the requests that huggingface_hub sends to share a model and to fetch it.

Repositories live in memory. Large files go through Git LFS and small ones into the commit, as on the hub.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

TOKEN = "hf_stand_in"  # of the owner of all repositories
_LICENCES = ("cc-by-4.0", "mit", "other")


class Hub:
    """repositories: {OWNER/NAME: {"private", "commits": {sha: {path: bytes}}, "refs": {revision: sha}}}"""

    def __init__(self):
        self.repositories, self.objects, self.requests = {}, {}, []

    def create(self, name, private):
        self.repositories[name] = dict(private=private, commits={"0" * 40: {}}, refs={"main": "0" * 40})

    def commit(self, name, files):
        """Adds {path: bytes} to main; the new commit"""
        repository = self.repositories[name]
        files = repository["commits"][repository["refs"]["main"]] | files
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository["commits"][sha], repository["refs"]["main"] = files, sha
        return sha

    def find(self, name, revision="main"):
        """(commit, its files), or the X-Error-Code of what is missing"""
        if name not in self.repositories:
            return "RepoNotFound"
        repository = self.repositories[name]
        sha = repository["refs"].get(revision, revision)
        return (sha, repository["commits"][sha]) if sha in repository["commits"] else "RevisionNotFound"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, status, content=b"", **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": len(data)} | headers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status, code, said):
        self._answer(status, {"error": said}, X_Error_Code=code, X_Error_Message=said)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    @property
    def hub(self):
        return self.server.hub

    def _is_owner(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        self.hub.requests.append((self.command, path))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if api is None and file is None:
            return self._answer(404, {"error": "no such page"})
        name, revision = (api[1], api[3] or "main") if api else (file[1], file[2])
        found = self.hub.find(name, revision)
        if found == "RepoNotFound" or (self.hub.repositories[name]["private"] and not self._is_owner()):
            return self._refuse(401, "RepoNotFound", "Repository not found")
        if found == "RevisionNotFound":
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        sha, files = found
        if api:
            return self._answer(200, self._listing(files) if api[2] == "tree" else self._model(name, sha, files))
        if file[3] not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        etag = f'"{hashlib.sha256(files[file[3]]).hexdigest()}"'
        self._answer(200, files[file[3]], ETag=etag, X_Repo_Commit=sha, Content_Type="application/octet-stream")

    def _model(self, name, sha, files):
        private = self.hub.repositories[name]["private"]
        return dict(id=name, modelId=name, sha=sha, private=private, siblings=[dict(rfilename=f) for f in files])

    def _listing(self, files):
        blob = lambda data: hashlib.sha1(data).hexdigest()
        return [dict(type="file", path=path, size=len(data), oid=blob(data)) for path, data in files.items()]

    def do_PUT(self):
        data = self._body()
        self.hub.objects[hashlib.sha256(data).hexdigest()] = data
        self._answer(200)

    def do_POST(self):
        path, body = urllib.parse.unquote(urllib.parse.urlparse(self.path).path), self._body()
        self.hub.requests.append((self.command, path))
        if not self._is_owner():
            return self._refuse(401, "", "Invalid username or password.")
        repository = re.match(r"(?:/api/models)?/([^/]+/[^/]+?)(?:\.git|/preupload|/commit)/", path)
        if repository and repository[1] not in self.hub.repositories:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if "/preupload/" in path:
            mode = lambda file: "lfs" if file["path"].endswith(".safetensors") else "regular"
            files = [dict(path=f["path"], uploadMode=mode(f), shouldIgnore=False) for f in json.loads(body)["files"]]
            return self._answer(200, dict(files=files))
        if path.endswith("/info/lfs/objects/batch"):
            upload = lambda oid: dict(upload=dict(href=f"{self._origin()}/lfs/{oid}"))
            objects = [each | dict(actions=upload(each["oid"])) for each in json.loads(body)["objects"]]
            return self._answer(200, dict(transfer="basic", objects=objects))
        if "/commit/" in path:
            return self._commit(repository[1], [json.loads(line) for line in body.splitlines()])
        self._answer(404, {"error": "no such page"})

    def _origin(self):
        return f"http://{self.headers['Host']}"

    def _create(self, asked):
        name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
        known = name in self.hub.repositories
        if asked.get("organization") == "elsewhere":
            return self._refuse(403, "", "You don't have the rights to create a model under the namespace elsewhere")
        if not known:
            self.hub.create(name, asked.get("visibility") == "private" or bool(asked.get("private")))
        self._answer(409 if known else 200, dict(url=f"{self._origin()}/{name}", id=name))

    def _validate(self, text):
        licence = re.search(r"^license: (\S+)$", text.split("---")[1], flags=re.M)
        if licence is None or licence[1] not in _LICENCES:
            return self._answer(400, dict(errors=[dict(message='"license" must be one of a list')], warnings=[]))
        self._answer(200, dict(errors=[], warnings=[]))

    def _commit(self, name, lines):
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        sha = self.hub.commit(name, files)
        self._answer(200, dict(commitOid=sha, commitUrl=f"{self._origin()}/{name}/commit/{sha}", success=True))


@contextlib.contextmanager
def serving():
    """(the `Hub`, its address), while it can be reached"""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.05), daemon=True)
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
