// A js-libp2p node: gossip on our topics, ping, one request; driven by JSON lines.
// usage: node --import ./polyfill.mjs node.mjs SEED_HEX PORT TOPIC...
import { createInterface } from 'node:readline'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { multiaddr } from '@multiformats/multiaddr'

const [seed, port, ...topics] = process.argv.slice(2)
const say = value => process.stdout.write(JSON.stringify(value) + '\n')
const now = () => Number(process.hrtime.bigint()) / 1e9
const node = await createLibp2p({
  privateKey: await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'hex')),
  addresses: { listen: [`/ip4/127.0.0.1/tcp/${port}`] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionMonitor: { enabled: false },
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({
      emitSelf: false, allowPublishToZeroTopicPeers: true, heartbeatInterval: 1000,
      D: 64, Dlo: 64, Dhi: 128, scoreParams: { IPColocationFactorWeight: 0 }
    })
  }
})
const trips = []
let bench = false
node.services.pubsub.addEventListener('message', ({ detail }) => {
  const data = Buffer.from(detail.data)
  if (bench) trips.push(now() - data.readDoubleBE(0))
  else say({ message: data.toString('hex'), topic: detail.topic, from: detail.from.toString() })
})
for (const topic of topics) node.services.pubsub.subscribe(topic)
say({ ready: node.peerId.toString() })

async function measure ({ rate, seconds, bytes }) {
  bench = true
  trips.length = 0
  const before = process.cpuUsage(), start = now(), count = Math.round(rate * seconds)
  for (let number = 0; number < count; number++) {
    const wait = start + number / rate - now()
    if (wait > 0) await new Promise(resolve => setTimeout(resolve, wait * 1000))
    const data = Buffer.alloc(bytes)
    data.writeDoubleBE(now(), 0)
    data.writeUInt32BE(number, 8)
    await node.services.pubsub.publish(topics[0], data)
  }
  await new Promise(resolve => setTimeout(resolve, 1000))
  const used = process.cpuUsage(before)
  return { sent: count, trips, cpu: (used.user + used.system) / 1e6, rss: process.memoryUsage().rss }
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line)
  try {
    if (order.dial) { await node.dial(multiaddr(order.dial)); say({ dialled: true }) }
    if (order.ping) say({ ping: await node.services.ping.ping(multiaddr(order.ping)) })
    if (order.peers) say({ peers: node.services.pubsub.getSubscribers(topics[0]).length, mesh: node.services.pubsub.getMeshPeers(topics[0]).length })
    if (order.publish) { await node.services.pubsub.publish(order.topic, Buffer.from(order.publish, 'hex')); say({ published: true }) }
    if (order.measure) say(await measure(order.measure))
  } catch (error) { say({ error: String(error) }) }
}
await node.stop()
process.exit(0)
