// ioredis' Cluster and its scans, as an application uses them. Run: node ioredis_cluster.js PORT, ioredis on NODE_PATH.
"use strict";
const assert = require("assert");
const Redis = require("ioredis");

const port = Number(process.argv[2]);
const KEYS = 2000;

async function main() {
  const cluster = new Redis.Cluster([{ host: "127.0.0.1", port }]);
  cluster.on("error", (error) => { throw error; });
  await cluster.flushall();
  await Promise.all(Array.from({ length: KEYS }, (_, n) => cluster.set(`key:${n}`, n)));
  assert.strictEqual(await cluster.get("key:7"), "7");
  assert.strictEqual(cluster.nodes("master").length, 1);
  const pipeline = cluster.pipeline();
  for (let n = 0; n < 100; n++) pipeline.incr(`key:${n}`);
  assert.deepStrictEqual((await pipeline.exec())[99], [null, 100]);

  // A cursor kept as a number, as many programs do.
  const seen = new Set();
  let cursor = 0;
  do {
    const [next, keys] = await cluster.nodes("master")[0].scan(cursor);
    keys.forEach((key) => seen.add(key));
    cursor = Number(next);
  } while (cursor !== 0);
  assert.strictEqual(seen.size, KEYS);
  await cluster.quit();

  const single = new Redis(port, "127.0.0.1");
  const streamed = new Set();
  for await (const keys of single.scanStream({ count: 100 })) keys.forEach((key) => streamed.add(key));
  assert.strictEqual(streamed.size, KEYS);
  await single.quit();
  console.log(`ioredis ${require("ioredis/package.json").version}: fine`);
}

main().catch((error) => { console.error(error); process.exit(1); });
