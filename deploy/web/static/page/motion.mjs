// DeviceMotion: its permission, and its events as rows in the model's channels, axes and units.
// W3C DeviceOrientation: x to the right, y to the top, z out of the screen; [m/s^2] at rest +9.8 upwards; [deg/s].
// Every browser gives the turn about x, y, z as alpha, beta, gamma (w3c/deviceorientation issue 44).

const RADIANS = Math.PI / 180;

/** Tell whether a browser runs on iOS, where acceleration has the opposite sign (WebKit passes Core Motion's on). */
export function onIos({ userAgent, platform, maxTouchPoints }) {
  return /iPhone|iPad|iPod/.test(userAgent) || (platform === "MacIntel" && maxTouchPoints > 1);
}

/** Return one value a channel in SI units, NaN where the device measures none. */
export function rowOf(event, channels, { ios }) {
  const acc = event.accelerationIncludingGravity ?? {};
  const turn = event.rotationRate ?? {};
  const sign = ios ? -1 : 1;
  const found = {
    acc_x: scaled(acc.x, sign),
    acc_y: scaled(acc.y, sign),
    acc_z: scaled(acc.z, sign),
    gyro_x: scaled(turn.alpha, RADIANS),
    gyro_y: scaled(turn.beta, RADIANS),
    gyro_z: scaled(turn.gamma, RADIANS),
  };
  return channels.map((name) => found[name]);
}

/** Ask for the sensors, which iOS wants from within a tap; throw where they are not to be had. */
export async function askForMotion() {
  if (!window.isSecureContext || typeof DeviceMotionEvent === "undefined") {
    throw new Error("motion sensors need an https address and a phone's browser");
  }
  if (typeof DeviceMotionEvent.requestPermission !== "function") return;
  if ((await DeviceMotionEvent.requestPermission()) !== "granted") {
    throw new Error("access to the motion sensors was refused; allow it in the browser's settings of this site");
  }
}

function scaled(value, factor) {
  return typeof value === "number" ? value * factor : NaN;
}
