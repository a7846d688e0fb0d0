// A recording as csv: seconds and the model's channels in SI units, as `python -m imu_saga predict` reads it.

export class Recording {
  constructor(channels) {
    this.channels = channels;
    this.lines = [];
  }

  add(timeS, row) {
    const cells = [timeS.toFixed(6), ...row.map((value) => (Number.isFinite(value) ? String(value) : ""))];
    this.lines.push(cells.join(","));
  }

  get text() {
    return [["time", ...this.channels].join(","), ...this.lines, ""].join("\n");
  }

  /** Hand the csv to the browser as a download. */
  download(name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.text], { type: "text/csv" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}
