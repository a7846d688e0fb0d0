// Pixels of a file or of the camera: upright, on white, colours as stored.

/** Return RGBA pixels {data, height, width} of a file (Blob) or a video's present picture. */
export async function pixelsOf(source) {
  const bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
