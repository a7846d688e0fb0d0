// The numbers of imu_saga.signal and imu_saga.streaming; a test holds them equal to Python's.

export const STOPBAND_DB = 80;
export const PASSBAND = 0.8;
export const TERMS = [250, 500, 1000, 2000];
export const MAX_DRIFT = 0.005; // of a sample
export const HORIZON = 1_000_000; // samples
export const MISSING_PERIODS = 1.75;
export const MIN_STRETCH = 4; // samples
export const SAME_PERIODS = 0.1;
export const NODES = 4; // of a cubic
