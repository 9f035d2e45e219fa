// A service in Node. It listens where it is told to, and `disco run` does the rest.
//
//     disco dev --nodes 1 --port 2379                         in one terminal: a real etcd, where the examples look for one
//     disco run experiment --health-path /healthz --http-keepalive 30 -- node examples/frameworks/node_service.js
//                                                             in a second and a third: two instances of 'experiment'
//     python examples/caller_sync.py 1000                     in a fourth: who answers? End one with Ctrl-C meanwhile

"use strict";
const http = require("node:http");
const { PORT, DISCO_SERVICE, DISCO_INSTANCE } = process.env;

const server = http.createServer((request, response) => {
  // One may leave these lines out. They refuse what was meant for an instance that had this port before, and say who answers.
  const expected = request.headers["x-disco-expect"];
  if (DISCO_INSTANCE) response.setHeader("X-Disco-Instance", DISCO_INSTANCE);
  if (DISCO_INSTANCE && expected && expected !== `${DISCO_SERVICE}/${DISCO_INSTANCE}`) {
    response.writeHead(421).end(`This request was meant for ${expected}.\n`);
    return;
  }
  response.setHeader("Content-Type", "text/plain; charset=utf-8");
  response.end(request.url === "/healthz" ? "well\n" : `${request.url} answered by ${process.pid}\n`);
});

server.keepAliveTimeout = 30_000; // milliseconds: the same as --http-keepalive, so that callers know
server.listen(Number(PORT), "0.0.0.0");

// It comes when all callers have left. What is in flight all the same is finished.
process.on("SIGTERM", () => server.close(() => process.exit(0)));
