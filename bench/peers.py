"""The proxies of the bench: for each, the configuration of each role, written as its own manual would have it for speed.

All run one worker thread, keep their upstream connections, log no request, and speak HTTP/2 to the upstream where they can:
haproxy by `proto h2`, nghttpx by `proto=h2`; nginx and h2o have no HTTP/2 towards an upstream, so theirs is HTTP/1.1 with
keep-alive, and the table says so. A role that a proxy cannot play raises Cannot.

A role is {front: h1 | h2c | tls | mtls, back: h1 | h2c | tls | mtls}, with `lua` for a policy in Lua and, ephor only, `limit`
for a rate limit and `watch` for a policy that looks at each event of a stream. With tls on both sides ephor intercepts: it makes the certificate, and verifies the host's like the others.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ["ephor", "haproxy", "nghttpx", "nginx", "h2o"]


class Cannot(Exception):
    pass


def program(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")


def version(name):
    argv = {"ephor": ["version"], "haproxy": ["-v"], "nginx": ["-v"]}.get(name, ["--version"])
    done = subprocess.run([binary(name), *argv], capture_output=True, text=True)
    first = (done.stdout + done.stderr).strip().splitlines()[0]
    return re.sub(r"\s+", " ", first)[:80]


def binary(name):
    if name == "ephor":
        return os.environ.get("EPHOR_BIN", str(ROOT / "build" / "release" / "ephor"))
    return program(name)


# --- ephor --------------------------------------------------------------------------------------------------------------
WATCH = """\
local policy = require "ephor.policy"
return policy {
  name = "watch",
  event = function(e)
    if e.data:find("secret", 1, true) then return e:deny("no secrets") end
  end,
}
"""

POLICY = """\
local policy = require "ephor.policy"
return policy {
  name = "tenants",
  call = function(c)
    if c.headers["x-tenant"] == "evil" then
      return c:deny("this tenant is not served")
    end
  end,
}
"""


def ephor(role, port, upstream, pki, home):
    listener = {"name": "bench", "bind": f"127.0.0.1:{port}", "cluster": "app"}
    cluster = {"name": "app", "endpoints": [f"127.0.0.1:{upstream}"],
               "protocol": {"h1": "http/1.1"}.get(role["back"], "h2")}
    if role["back"] == "tls":
        listener["direction"] = "outbound"
    elif role["front"] in ("tls", "mtls"):
        listener["tls"] = {"tls": "simple", "mtls": "strict"}[role["front"]]
    if role["back"] == "mtls":
        cluster["tls"] = {"mode": "mesh"}
    configuration = {
        "workers": 1,
        "admin": {"bind": f"127.0.0.1:{port + 1}", "metrics": f"127.0.0.1:{port + 2}"},
        "access_log": {"enabled": False},
        "listeners": [listener],
        "clusters": [cluster],
    }
    if role["back"] == "tls":
        configuration["egress"] = [{"hosts": ["localhost"], "tls": "intercept", "roots": pki.roots}]
        configuration["egress_tls"] = {"bundle": str(home / "trust.pem")}
    elif "tls" in role["front"] or role["back"] == "mtls":
        configuration["identity"] = {"files": {"certificate": pki.certificate, "key": pki.key, "roots": pki.roots},
                                     "trust_domain": "cluster.local"}
    if role.get("lua") or role.get("watch"):
        (home / "policies").mkdir()
        (home / "policies" / "policy.lua").write_text(WATCH if role.get("watch") else POLICY)
        configuration["policies"] = {"directory": str(home / "policies"), "budget": {"time": "1s"}}  # callgrind is slow
    if role.get("limit"):
        limit = {"name": "bench", "key": ["path"], "requests": "1000000/s"}
        listener["filters"] = ["identity", "agent", "constitution", "policies", "mcp", {"ratelimit": {"limits": [limit]}}, "chaos", "meter"]
    path = home / "ephor.yaml"
    path.write_text(json.dumps(configuration, indent=1))  # JSON is YAML
    return [binary("ephor"), "run", "-c", path]


# --- haproxy ------------------------------------------------------------------------------------------------------------
HAPROXY_LUA = """\
core.register_action("tenants", {"http-req"}, function(txn)
  local tenant = txn.http:req_get_headers()["x-tenant"]
  if tenant and tenant[0] == "evil" then
    txn:done(txn:reply{status = 403, body = "this tenant is not served"})
  end
end)
"""


def haproxy(role, port, upstream, pki, home):
    bind = {"h1": "proto h1", "h2c": "proto h2",
            "tls": f"ssl crt {pki.bundle} alpn h2",
            "mtls": f"ssl crt {pki.bundle} ca-file {pki.roots} verify required alpn h2"}[role["front"]]
    server = {"h1": "proto h1", "h2c": "proto h2",
              "tls": f"ssl ca-file {pki.roots} verify required sni str(localhost) verifyhost localhost alpn h2",
              "mtls": f"ssl crt {pki.bundle} ca-file {pki.roots} verify required sni str(localhost) verifyhost localhost alpn h2"
              }[role["back"]]
    lua = action = ""
    if role.get("lua"):
        (home / "tenants.lua").write_text(HAPROXY_LUA)
        lua, action = f"lua-load {home}/tenants.lua", "http-request lua.tenants"
    path = home / "haproxy.cfg"
    path.write_text(f"""
global
    nbthread 1
    maxconn 4000
    tune.h2.max-concurrent-streams 256
    {lua}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend bench
    bind 127.0.0.1:{port} {bind}
    {action}
    default_backend app
backend app
    server s 127.0.0.1:{upstream} {server}
""")
    return [binary("haproxy"), "-db", "-f", path]


# --- nghttpx ------------------------------------------------------------------------------------------------------------
def nghttpx(role, port, upstream, pki, home):
    if role.get("lua"):
        raise Cannot("Debian's nghttpx has no scripting")
    front = f"127.0.0.1,{port}" + ("" if "tls" in role["front"] else ";no-tls")
    back = f"127.0.0.1,{upstream};;" + {"h1": "proto=http/1.1", "h2c": "proto=h2",
                                        "tls": "proto=h2;tls;sni=localhost", "mtls": "proto=h2;tls;sni=localhost"}[role["back"]]
    argv = [binary("nghttpx"), "--conf=/dev/null", "--single-process", "--workers=1", "--no-ocsp", "--no-via",
            "--no-server-rewrite", "--no-add-x-forwarded-proto", "--accesslog-file=/dev/null",
            f"--errorlog-file={home}/error.log", f"--frontend={front}", f"--backend={back}",
            "--frontend-http2-max-concurrent-streams=256", f"--cacert={pki.roots}",
            f"--client-cert-file={pki.certificate}", f"--client-private-key-file={pki.key}"]
    if role["front"] == "mtls":
        argv += ["--verify-client", f"--verify-client-cacert={pki.roots}"]
    return argv + [pki.key, pki.certificate]


# --- nginx --------------------------------------------------------------------------------------------------------------
NGINX_LUA = """access_by_lua_block {
    if ngx.req.get_headers()["x-tenant"] == "evil" then
        ngx.status = 403; ngx.say("this tenant is not served"); return ngx.exit(403)
    end
}"""


def nginx(role, port, upstream, pki, home):
    if role["back"] in ("tls", "mtls"):
        raise Cannot("nginx has no HTTP/2 towards an upstream")
    listen = {"h1": "", "h2c": "http2", "tls": "ssl http2", "mtls": "ssl http2"}[role["front"]]
    modules = "".join(f"load_module modules/{m};\n" for m in ("ndk_http_module.so", "ngx_http_lua_module.so")) \
        if role.get("lua") else ""
    tls = f"ssl_certificate {pki.certificate}; ssl_certificate_key {pki.key}; ssl_session_cache off;" if "tls" in role["front"] else ""
    path = home / "nginx.conf"
    path.write_text(f"""
{modules}
daemon off; master_process off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log crit;
events {{ worker_connections 4096; multi_accept on; }}
http {{
    access_log off; keepalive_requests 1000000000; http2_max_concurrent_streams 256;
    client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
    uwsgi_temp_path {home}/u; scgi_temp_path {home}/s; client_body_buffer_size 64k; proxy_buffers 16 64k;
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} {listen}; {tls}
        location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
                      {NGINX_LUA if role.get("lua") else ""} }}
    }}
}}
""")
    if modules:
        (home / "modules").symlink_to("/usr/lib/nginx/modules")
    return [binary("nginx"), "-p", home, "-c", path]


# --- h2o ----------------------------------------------------------------------------------------------------------------
def h2o(role, port, upstream, pki, home):
    if role["back"] in ("tls", "mtls"):
        raise Cannot("h2o 2.2 has no HTTP/2 towards an upstream")
    if role.get("lua"):
        raise Cannot("h2o scripts in mruby, not in Lua")
    tls = f", ssl: {{certificate-file: {pki.certificate}, key-file: {pki.key}}}" if "tls" in role["front"] else ""
    path = home / "h2o.conf"
    path.write_text(f"""
num-threads: 1
max-connections: 4096
http2-max-concurrent-requests-per-connection: 256
ssl-session-resumption: {{mode: off}}
listen: {{host: 127.0.0.1, port: {port}{tls}}}
hosts:
  default:
    paths:
      /: {{proxy.reverse.url: "http://127.0.0.1:{upstream}/", proxy.timeout.keepalive: 60000, proxy.preserve-host: "ON"}}
""")
    return [binary("h2o"), "-c", path]


def command(name, role, port, upstream, pki, home):
    """The command line of a proxy in a role; writes its files into `home`."""
    if "protocol" in role:
        raise Cannot(role["protocol"])
    if role.get("watch") and name != "ephor":
        raise Cannot("nothing that looks at events")
    return [str(a) for a in {"ephor": ephor, "haproxy": haproxy, "nghttpx": nghttpx, "nginx": nginx,
                             "h2o": h2o}[name](role, port, upstream, pki, home)]


def speaks_h2_upstream(name):
    return name in ("ephor", "haproxy", "nghttpx")
