// The channel to one service: protocol, retry policies and deadlines come from proto/, the same for every language.
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const ROOT = fileURLToPath(new URL('../../proto/', import.meta.url));
const FOLDER = path.join(ROOT, 'dtms', 'v1');

/** Deadline of each unary method in seconds, by `package.Service/Method`. */
const TIMEOUTS = JSON.parse(readFileSync(path.join(FOLDER, 'timeouts.json'), 'utf8')).methods;

// Revisions are uint64 and pass 2^53: they stay strings.
const LOADING = { includeDirs: [ROOT], keepCase: true, longs: String, enums: String, oneofs: true };

const dtms = grpc.loadPackageDefinition(
  protoLoader.loadSync(readdirSync(FOLDER).filter((name) => name.endsWith('.proto')).map((name) => `dtms/v1/${name}`), LOADING),
).dtms.v1;

/** The services a watcher needs, with the token of this client on each call. */
export class Client {
  #registry;
  #status;
  #metadata = new grpc.Metadata();

  /**
   * @param {string} address host:port; plain text, as on loopback (a service that listens elsewhere insists on TLS)
   * @param {string} token
   */
  constructor(address, token) {
    this.#metadata.set('authorization', `Bearer ${token}`);
    const options = {
      'grpc.service_config': readFileSync(path.join(FOLDER, 'service_config.json'), 'utf8'),
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
    };
    this.#registry = new dtms.RegistryService(address, grpc.credentials.createInsecure(), options);
    this.#status = new dtms.TradeStatusService(address, grpc.credentials.createInsecure(), options);
  }

  /**
   * Registers a position. Idempotent: the same trade again answers with the one that exists.
   * @param {object} registration as dtms.v1.Registration
   * @returns {Promise<object>} dtms.v1.RegisterTradeResponse
   */
  register(registration) {
    const seconds = TIMEOUTS['dtms.v1.RegistryService/RegisterTrade'];
    if (seconds === undefined) throw new Error('timeouts.json does not name RegisterTrade');
    const deadline = new Date(Date.now() + seconds * 1000);
    return new Promise((resolve, reject) => {
      this.#registry.RegisterTrade({ registration }, this.#metadata, { deadline }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  }

  /**
   * Opens a stream of dtms.v1.WatchResponse; it has no deadline and lives on keepalive.
   * @param {object} request as dtms.v1.WatchRequest
   * @param {AbortSignal} signal ends the stream
   */
  watch(request, signal) {
    const stream = this.#status.Watch(request, this.#metadata);
    const cancel = () => stream.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    stream.once('close', () => signal.removeEventListener('abort', cancel));
    return stream;
  }

  close() {
    this.#registry.close();
    this.#status.close();
  }
}
