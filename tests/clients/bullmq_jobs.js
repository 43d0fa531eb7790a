// BullMQ: queues that are filled and worked off, by scripts alone. Run: node bullmq_jobs.js PORT PREFIX, it on NODE_PATH.
//
// PREFIX in {braces} keeps all keys of a queue in one slot, as BullMQ asks for where there are several shards.
"use strict";
const assert = require("assert");
const Redis = require("ioredis");
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");

const connection = { host: "127.0.0.1", port: Number(process.argv[2]) };
const options = { connection, prefix: process.argv[3] };
const JOBS = 200;
const PATIENCE = 60000;
const open = [];

function opened(what) {
  what.on("error", (error) => console.error("error of a connection:", error));
  open.push(what);
  return what;
}

async function plainJobs(queue, events) {
  const jobs = await queue.addBulk([...Array(JOBS).keys()].map((n) => ({ name: "square", data: { n } })));
  assert.strictEqual((await queue.getJobCounts("waiting")).waiting, JOBS);
  const seen = new Map();
  const work = async (job) => {
    seen.set(job.id, (seen.get(job.id) ?? 0) + 1);
    await job.updateProgress(50);
    return job.data.n ** 2;
  };
  const workers = [1, 2].map(() => opened(new Worker(queue.name, work, { ...options, concurrency: 5 })));
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, PATIENCE)));
  assert.deepStrictEqual(results, [...Array(JOBS).keys()].map((n) => n ** 2));
  assert.deepStrictEqual([...seen.values()], Array(JOBS).fill(1), "a job was done twice");
  assert.strictEqual((await queue.getJobCounts("completed")).completed, JOBS);
  assert.strictEqual(await jobs[0].getState(), "completed");
  await Promise.all(workers.map((worker) => worker.close()));
}

async function specialJobs(queue, events) {
  await queue.pause();
  const order = [];
  const attempts = new Map();
  const first = await queue.add("low", {}, { priority: 9 });
  const second = await queue.add("high", {}, { priority: 1 });
  const plain = await queue.add("plain", {});
  const late = await queue.add("late", {}, { delay: 300 });
  const again = await queue.add("again", {}, { attempts: 3, backoff: { type: "fixed", delay: 20 } });
  const bad = await queue.add("bad", {});
  const twin = await queue.add("twin", {}, { jobId: "same" });
  assert.strictEqual((await queue.add("twin", {}, { jobId: "same" })).id, twin.id);
  const worker = opened(new Worker(queue.name, async (job) => {
    order.push(job.name);
    attempts.set(job.name, (attempts.get(job.name) ?? 0) + 1);
    if (job.name === "bad" || (job.name === "again" && attempts.get("again") < 3)) throw new Error("on purpose");
    return job.name;
  }, options));
  await queue.resume();
  const done = [first, second, plain, late, again, twin].map((job) => job.waitUntilFinished(events, PATIENCE));
  assert.deepStrictEqual(await Promise.all(done), ["low", "high", "plain", "late", "again", "twin"]);
  await assert.rejects(bad.waitUntilFinished(events, PATIENCE), /on purpose/);
  assert.strictEqual(await bad.getState(), "failed");
  assert.strictEqual(attempts.get("again"), 3);
  assert.strictEqual(attempts.get("twin"), 1);
  assert(order.indexOf("plain") < order.indexOf("high") && order.indexOf("high") < order.indexOf("low"), order);
  await worker.close();
  await bad.retry();
  assert.strictEqual(await bad.getState(), "waiting");
  assert.strictEqual((await queue.getJobs(["waiting"])).length, 1);
  await bad.remove();
}

async function flows(queue, events) {
  const worker = opened(new Worker(queue.name, async (job) => {
    if (job.name === "child") return job.data.n;
    return Object.values(await job.getChildrenValues()).reduce((sum, n) => sum + n, 0);
  }, options));
  const producer = opened(new FlowProducer(options));
  const children = [...Array(10).keys()].map((n) => ({ name: "child", data: { n }, queueName: queue.name }));
  const { job } = await producer.add({ name: "parent", queueName: queue.name, children });
  assert.strictEqual(await job.waitUntilFinished(events, PATIENCE), 45);
  await worker.close();
}

async function repeated(queue) {
  let runs = 0;
  const enough = new Promise((resolve) => {
    opened(new Worker(queue.name, async () => {
      if (++runs === 3) resolve();
    }, options));
  });
  await queue.upsertJobScheduler("tick", { every: 100 }, { name: "tick" });
  await enough;
  assert.strictEqual((await queue.getJobSchedulers()).length, 1);
  assert.strictEqual(await queue.removeJobScheduler("tick"), true);
}

async function main() {
  const client = new Redis(connection.port);
  for (const [name, part] of Object.entries({ plainJobs, specialJobs, flows, repeated })) {
    const queue = opened(new Queue(name, options));
    const events = opened(new QueueEvents(name, options));
    await events.waitUntilReady();
    await part(queue, events);
    while (open.length > 2) await open.pop().close();
    await queue.obliterate({ force: true });
    assert.deepStrictEqual(await client.keys(`${options.prefix}:${name}:*`), [], "keys are left");
    while (open.length) await open.pop().close();
  }
}

main().then(() => {
  console.log(`BullMQ ${require("bullmq/package.json").version}: fine`);
  process.exit(0);
}, (error) => {
  console.error(error);
  process.exit(1);
});
