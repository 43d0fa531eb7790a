// Streams and groups through node-redis or ioredis, whichever is given. Run: node node_streams.js PORT NAME, it on NODE_PATH.
"use strict";
const assert = require("assert");

const port = Number(process.argv[2]);

async function ioredis() {
  const Redis = require("ioredis");
  const client = new Redis(port);
  const waiting = new Redis(port);
  await client.flushall();
  const ids = [];
  for (let n = 0; n < 5; n++) ids.push(await client.xadd("events", "*", "n", n));
  assert.deepStrictEqual((await client.xrange("events", "-", "+")).map(([id]) => id), ids);
  await client.xgroup("CREATE", "events", "workers", "0");
  const [[name, entries]] = await client.xreadgroup("GROUP", "workers", "a", "COUNT", 3, "STREAMS", "events", ">");
  assert.strictEqual(name, "events");
  assert.deepStrictEqual(entries.map(([id, fields]) => [id, fields]), ids.slice(0, 3).map((id, n) => [id, ["n", `${n}`]]));
  assert.strictEqual(await client.xack("events", "workers", ...ids.slice(0, 2)), 2);
  assert.strictEqual((await client.xautoclaim("events", "workers", "b", 0, "0"))[1].length, 1);
  const reading = waiting.xread("BLOCK", 10000, "STREAMS", "events", "other", "$", "$");
  await new Promise((resolve) => setTimeout(resolve, 100));
  await client.xadd("other", "*", "n", 9);
  assert.deepStrictEqual((await reading)[0][0], "other");
  client.disconnect();
  waiting.disconnect();
}

async function redis() {
  const { createClient } = require("redis");
  const client = createClient({ url: `redis://127.0.0.1:${port}` });
  await client.connect();
  await client.flushAll();
  const ids = [];
  for (let n = 0; n < 5; n++) ids.push(await client.xAdd("events", "*", { n: `${n}` }));
  assert.deepStrictEqual((await client.xRange("events", "-", "+")).map(({ id }) => id), ids);
  await client.xGroupCreate("events", "workers", "0");
  const [found] = await client.xReadGroup("workers", "a", { key: "events", id: ">" }, { COUNT: 3 });
  assert.deepStrictEqual(found.messages.map(({ message }) => message.n), ["0", "1", "2"]);
  assert.strictEqual(await client.xAck("events", "workers", ids.slice(0, 2)), 2);
  assert.strictEqual((await client.xAutoClaim("events", "workers", "b", 0, "0")).messages.length, 1);
  assert.strictEqual((await client.xInfoStream("events")).length, 5);
  client.destroy ? client.destroy() : await client.disconnect();
}

({ ioredis, redis })[process.argv[3]]().then(() => console.log("fine"), (error) => {
  console.error(error);
  process.exit(1);
});
