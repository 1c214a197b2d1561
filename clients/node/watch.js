#!/usr/bin/env node
// Registers a trade (when one is given), prints every event as one line of JSON, and resumes after a break exactly
// where it stopped.
import { readFileSync } from 'node:fs';
import { setTimeout as pauseFor } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { status } from '@grpc/grpc-js';

import { Client } from './client.js';

const USAGE = `usage: node watch.js --address host:port (--token TOKEN | --token-file FILE) [--from REVISION]
         [--ticket N --symbol NAME --side buy|sell --entry PRICE --volume LOTS [--sl PRICE] [--tp PRICE]
          [--account login@server] [--strategy TYPE]]
Without --from it begins with a snapshot; without --ticket it only watches.`;

// A restart of the service takes about a second; asking more often helps nobody.
const FIRST_PAUSE_MS = 250;
// Long enough to leave a service alone that is down, short enough to be back soon after it.
const LONGEST_PAUSE_MS = 5_000;

const TEXT = { type: 'string' };
const NAMES = ['address', 'token', 'token-file', 'from', 'ticket', 'account', 'symbol', 'side', 'entry', 'volume', 'sl', 'tp', 'strategy'];
const SIDES = new Map([['buy', 'SIDE_BUY'], ['sell', 'SIDE_SELL']]);

function number(given, name) {
  const value = Number(given[name]);
  if (given[name] === undefined || given[name] === '' || !Number.isFinite(value)) {
    throw new TypeError(`--${name} is ${given[name]}: a number is needed`);
  }
  return value;
}

function revision(text) {
  if (!/^\d+$/.test(text)) throw new TypeError(`--from is ${text}: a revision is needed`);
  return BigInt(text);
}

function registration(given) {
  if (!SIDES.has(given.side)) throw new TypeError(`--side is ${given.side}: buy or sell`);
  return {
    account_id: given.account ?? '',
    ticket: given.ticket,
    symbol: given.symbol ?? '',
    side: SIDES.get(given.side),
    entry_price: number(given, 'entry'),
    volume: number(given, 'volume'),
    strategy_type: given.strategy ?? '',
    ...(given.sl !== undefined && { sl: number(given, 'sl') }),
    ...(given.tp !== undefined && { tp: number(given, 'tp') }),
  };
}

/** Where a watcher stands: the next revision wanted; 0 asks for a snapshot first. */
class Cursor {
  constructor(next) {
    this.next = next;
  }

  request() {
    return this.next === 0n ? { snapshot: true } : { start_revision: this.next.toString() };
  }

  /** Prints one message and moves past what it covers. */
  take({ snapshot, events = [], progress }) {
    for (const trade of snapshot?.trades ?? []) console.log(JSON.stringify(trade));
    const complete = BigInt(snapshot?.complete_at_revision ?? 0);
    if (complete > 0n) this.next = complete + 1n;
    for (const event of events) {
      console.log(JSON.stringify(event));
      this.next = BigInt(event.revision) + 1n;
    }
    if (progress && this.next > 0n) this.next = BigInt(progress.revision ?? 0) + 1n;
  }
}

/** Prints until stopped, or throws what the service refuses with. Events lost to compaction are replaced by a snapshot. */
async function watch(client, cursor, signal) {
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    let reason = 'the service ended the stream';
    try {
      for await (const message of client.watch(cursor.request(), signal)) {
        pause = FIRST_PAUSE_MS;
        cursor.take(message);
      }
    } catch (error) {
      if (signal.aborted) return;
      reason = error.message;
      if (error.code === status.OUT_OF_RANGE && cursor.next !== 0n) {
        console.error(`revision ${cursor.next} cannot be had (${reason}): beginning with a snapshot`);
        cursor.next = 0n;
      } else if (error.code !== status.UNAVAILABLE) {
        throw error;
      }
    }
    if (signal.aborted) return;
    console.error(`${reason}: again from revision ${cursor.next} in ${pause} ms`);
    try {
      await pauseFor(pause, undefined, { signal });
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

async function main() {
  const { values: given } = parseArgs({
    options: { help: { type: 'boolean' }, ...Object.fromEntries(NAMES.map((name) => [name, TEXT])) },
  });
  if (given.help) {
    console.log(USAGE);
    return;
  }
  const token = given['token-file'] === undefined ? given.token : readFileSync(given['token-file'], 'utf8').trim();
  if (!given.address || !token) throw new TypeError(`--address and a token are required\n${USAGE}`);

  const cursor = new Cursor(revision(given.from ?? '0'));
  const trade = given.ticket === undefined ? undefined : registration(given);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => stop.abort());
  const client = new Client(given.address, token);
  try {
    if (trade !== undefined) {
      const { trade: known, created = false } = await client.register(trade);
      console.error(`trade ${known.ticket} of ${known.account_id || 'the only account'}: ${known.state}, owner ${known.managed_by || 'nobody'}, created ${created}`);
    }
    await watch(client, cursor, stop.signal);
  } finally {
    client.close();
    console.error(`to go on where this ended: --from ${cursor.next}`);
  }
}

try {
  await main();
} catch (error) {
  console.error(`dtms-watch: ${error.message}`);
  process.exitCode = 1;
}
