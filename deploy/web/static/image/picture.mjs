// Pixels of a file or of the camera: upright, on white, colours as stored.

/** Return RGBA pixels {data, height, width} of a file (Blob) or of a video's present picture. */
export async function pixelsOf(source) {
  if (!(source instanceof Blob)) return drawn(source, source.videoWidth, source.videoHeight);
  const bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" });
  const pixels = drawn(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return pixels;
}

function drawn(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}
