// node-redis (4 or 5): subscribe, psubscribe, sSubscribe over RESP2 and, from version 5 on, RESP3. Run: node node_redis_pubsub.js PORT
const { createClient } = require("redis");
const assert = require("assert");
const version = require("redis/package.json").version;
const port = Number(process.argv[2]);

async function check(options) {
  const publisher = createClient({ socket: { port }, ...options });
  const subscriber = publisher.duplicate();
  await publisher.connect();
  await subscriber.connect();
  const got = [];
  await subscriber.subscribe("news", (message) => got.push(message));
  await subscriber.pSubscribe("user.*", (message, channel) => got.push(channel + "=" + message));
  await subscriber.sSubscribe("shard", (message) => got.push("s:" + message));
  for (let i = 0; i < 100; i++) assert.strictEqual(await publisher.publish("news", String(i)), 1);
  assert.strictEqual(await publisher.publish("user.1", "x"), 1);
  assert.strictEqual(await publisher.sPublish("shard", "y"), 1);
  const limit = Date.now() + 60000;
  while (got.length < 102 && Date.now() < limit) await new Promise((resolve) => setTimeout(resolve, 5));
  const numbers = got.filter((one) => /^\d+$/.test(one));
  assert.deepStrictEqual(numbers, Array.from({ length: 100 }, (_, i) => String(i)));
  assert.ok(got.includes("user.1=x") && got.includes("s:y"));
  await subscriber.unsubscribe("news");
  assert.strictEqual(await publisher.publish("news", "late"), 0);
  assert.deepStrictEqual({ ...(await publisher.pubSubNumSub("news")) }, { news: 0 });
  subscriber.destroy ? subscriber.destroy() : await subscriber.disconnect();
  // Nobody is told when the server has seen that: what comes next counts who listens.
  const patterns = () => publisher.sendCommand(["PUBSUB", "NUMPAT"]);
  const channels = () => publisher.sendCommand(["PUBSUB", "SHARDCHANNELS"]);
  while ((Number(await patterns()) || (await channels()).length) && Date.now() < limit) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  publisher.destroy ? publisher.destroy() : await publisher.disconnect();
}

(async () => {
  await check({});
  if (Number(version.split(".")[0]) >= 5) await check({ RESP: 3 });
  console.log(`node-redis ${version} pub/sub: fine`);
})().catch((error) => { console.error(error); process.exit(1); });
