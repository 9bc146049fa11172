// The smallest inference server: POST a picture, get its labels.
//   node examples/http-server.mjs vim.w8a8.safetensors [port]
//   curl --data-binary @cat.jpg http://127.0.0.1:8080/
import { createServer } from 'node:http';
import { load } from 'ptq4vm-native';

const [file, port = '8080'] = process.argv.slice(2);
if (file === undefined) {
  console.error('usage: node examples/http-server.mjs MODEL [port]');
  process.exit(2);
}
const MAX_BYTES = 16 * 1024 * 1024;
const model = await load(file);

/** The body of a request; null when it is larger than a picture should be. */
async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= MAX_BYTES) chunks.push(chunk);
  }
  return size <= MAX_BYTES ? Buffer.concat(chunks) : null;
}

/** Status and answer for one request. Inference runs off the event loop, so other requests are read meanwhile. */
async function answer(request) {
  if (request.method !== 'POST') return [405, { error: 'POST a picture' }];
  const body = await readBody(request);
  if (body === null) return [413, { error: `more than ${MAX_BYTES} bytes` }];
  try {
    return [200, { top: await model.predict(body, { topK: 5 }) }];
  } catch (error) {
    // ERR_DATA: what was sent is no picture. Anything else is our own trouble.
    return error.code === 'ERR_DATA' ? [400, { error: error.message }] : [500, { error: 'inference failed' }];
  }
}

const server = createServer((request, response) => {
  answer(request).then(
    ([status, body]) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)),
    () => response.destroy(), // the client went away
  );
});
server.listen(Number(port), '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}/`));

process.once('SIGINT', () => {
  server.close(async () => {
    await model.dispose();
  });
  server.closeIdleConnections();
});
