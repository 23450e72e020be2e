// The dashboard: an image, the telemetry and the channels. Each has its own connection, and none waits for another.

import { Channels } from "./channels.js";
import { showImage } from "./image.js";
import { Telemetry } from "./telemetry.js";

const SERVER = new URL("..", import.meta.url);

showImage(new URL("stream/rover-image", SERVER));
new Telemetry(new URL("stream/rover-telemetry", SERVER));
new Channels((channel) => new URL(`ws/comms/${encodeURIComponent(channel)}`, SERVER));
